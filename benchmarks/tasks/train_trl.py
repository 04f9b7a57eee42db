"""Train with TRL's SFTTrainer as its documentation shows, loss on the answers, with or without packing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found, unused-ignore]

from benchmarks.tasks.clock import Clock

spec = json.loads(sys.argv[1])
rows = [json.loads(line)["messages"] for line in Path(spec["rows"]).read_text(encoding="utf-8").splitlines()]
clock = Clock()
trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(
        spec["model"], dtype=getattr(torch, spec["dtype"]), trust_remote_code=False
    ),
    args=SFTConfig(
        output_dir=spec["out"],
        # A packed sequence of 1,024 tokens holds more than a batch of rows: packing gets the larger batch.
        per_device_train_batch_size=1 if spec["packing"] else spec["batch_size"],
        packing=spec["packing"],
        max_length=1024,
        num_train_epochs=1,
        learning_rate=spec["learning_rate"],
        bf16=spec["dtype"] == "bfloat16",
        gradient_checkpointing=False,  # on by default, and slower
        use_cpu=not torch.cuda.is_available(),
        seed=spec["seed"],
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    ),
    train_dataset=Dataset.from_list([{"prompt": row[:-1], "completion": row[-1:]} for row in rows]),
    processing_class=AutoTokenizer.from_pretrained(spec["model"], trust_remote_code=False),
    peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    callbacks=[clock],
)
trainer.train()
print("RESULT", json.dumps(clock.result() | {"dtype": str(next(trainer.model.parameters()).dtype)}))
