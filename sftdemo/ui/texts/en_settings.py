"""English for settings whose names or help elsewhere speak of flags and values: on the page, of the fields and choices in sight."""

SETTINGS = {
    "set_on_fault": "Rows with problems",
    "help_on_fault": "Stop: all problems are listed and nothing is trained. Leave out: those rows are left out and listed. Repair: what "
    "can be repaired is, and the rest is left out.",
    "set_on_long": "Rows that are too long",
    "help_on_long": "Rows over the length limit: left out, without the middle of their prompt, or split into chunks with the same "
    "answer. An answer is never cut.",
    "help_max_length": "The longest row in tokens; “Rows that are too long” says what becomes of a longer one.",
    "set_balance": "Balance labels",
    "help_balance": "Where labels are of unequal size, training can repeat rows of small ones, leave out rows of large ones, or weigh "
    "rows of small ones more.",
    "help_thinking": "For models that answer with or without thoughts: in training and in chat alike.",
    "help_task": "Chat answers in words. A label for a text, or the entities in it, come from an encoder such as BERT; rewriting "
    "takes a model such as T5.",
    "help_method": "LoRA trains small added matrices; full tuning trains every weight. Of an encoder the head alone can be trained: a "
    "logistic head on its features, in seconds.",
    "help_max_steps": "Train for so many optimizer steps instead of epochs; with “Max minutes” as well, until the first is over.",
    "help_warmup_steps": "Steps over which the learning rate warms up, instead of the warm-up ratio.",
    "help_best_by": "What “Keep best” and “Patience” go by: the validation loss, or this metric of greedy answers to validation rows, of "
    "which some are kept to read.",
    "help_keep_best": "Keep the model of the step with the lowest validation loss, or the best by the chosen metric, instead of the "
    "last step's.",
    "help_patience": "Stop early once so many measurements in a row, of the validation loss or the chosen metric, are no better; keeps "
    "the best model.",
    "help_rehearsal": "With “Start from”: training rows of the earlier run put among the new ones, against forgetting, drawn by the "
    "seed; 0.1 is one for each ten new rows.",
    "help_SweepConfig_rank": "Ranks of the LoRA matrices to try, with commas; LoRA alpha moves along, so that the scale stays. Default: "
    "8,16,32 and the rank above.",
}
