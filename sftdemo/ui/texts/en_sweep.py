"""English: settings found by trying them."""

SWEEP = {
    "sweep_title": "Find good settings first",
    "sweep_help": "Trains combinations of these values for a short while, keeps the half with the lower validation loss, repeats, and "
    "trains the best one to its end, all within the time limit. Other settings are those above; test rows aren't used.",
    "sweep_go": "Try settings, train with the best",
    "sweep_tried": "Settings tried",
    "sweep_measuring": "The first trial tells how many combinations fit into {minutes} min.",
    "sweep_plan": "{n} of {all} combinations, at first for {share} of their steps: about {search}; the best one's training to its "
    "end: about {last} more; {minutes} min at most.",
    "sweep_plan_whole": "{n} of {all} combinations, at first for {share} of their steps, the best ones to their end: about {search}; "
    "{minutes} min at most.",
    "sweep_best": "The best: trial {number}, {settings}.",
    "sweep_trial": "Trial",
    "sweep_rate": "Learning rate",
    "sweep_rank": "Rank",
    "sweep_epochs": "Epochs",
    "sweep_steps": "Steps",
    "sweep_loss": "Validation loss",
    "sweep_time": "Time",
    "sweep_why": "Why it ended",
    "sweep_waiting": "still compared",
    "sweep_beaten": "others were better",
    "sweep_diverged": "loss diverged",
    "sweep_no_time": "out of time",
    "sweep_not_tried": "not tried: too few minutes",
    "sweep_chosen": "the best",
    "sweep_picture": "One line per trial, from its settings to its validation loss; bold: the best, dashed: ended early",
    "sweep_curves": "Curves of the trials",
}
