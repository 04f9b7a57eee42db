"""The choices of settings as the page shows them, by setting and value: English and Chinese; others stand as they are."""

from sftdemo.config.train import ANSWER_METRICS
from sftdemo.evaluation.registry import METRICS

CHOICES: dict[str, dict[str, tuple[str, str]]] = {
    "on_fault": {
        "stop": ("stop and list them", "停止并列出"),
        "drop": ("leave them out", "略过"),
        "fix": ("repair, leave out the rest", "修复，其余略过"),
    },
    "on_long": {
        "drop": ("leave it out", "略过"),
        "cut": ("cut the middle of its prompt", "截短提示的中间部分"),
        "chunk": ("split it into chunks", "分段"),
    },
    "balance": {
        "none": ("as it is", "不调整"),
        "over": ("repeat rows of small labels", "重复少数标签的行"),
        "under": ("leave out rows of large labels", "略去多数标签的行"),
        "weights": ("weigh rows of small labels more", "加大少数标签的行的权重"),
    },
    "task": {
        "chat": ("chat", "对话"),
        "classification": ("a label for a text", "给文本一个标签"),
        "tokens": ("entities in a text", "标出文本中的实体"),
        "seq2seq": ("rewriting a text", "改写文本"),
    },
    "method": {
        "lora": ("LoRA", "LoRA"),
        "full": ("full weights", "全参数"),
        "frozen": ("frozen, head alone", "编码器不变，只训练分类头"),
    },
    "best_by": {"loss": ("validation loss", "验证损失"), **{name: METRICS[name].names for name in ANSWER_METRICS}},
    "pooling": {"mean": ("mean of all tokens", "各 token 的平均"), "cls": ("first token", "第一个 token")},
    "modules_to_save": {
        "none": ("none", "无"),
        "embeddings": ("embeddings", "词嵌入"),
        "head": ("output head", "输出层"),
        "both": ("embeddings and head", "词嵌入和输出层"),
    },
    "thinking": {
        "auto": ("as the template does", "按模板"),
        "on": ("with thoughts", "带思考"),
        "off": ("without thoughts", "不带思考"),
    },
    "schedule": {
        "linear": ("linear", "线性下降"),
        "cosine": ("cosine", "余弦下降"),
        "constant": ("constant", "保持不变"),
    },
    "quantization": {"none": ("none", "不量化"), "int8": ("int8", "int8"), "nf4": ("NF4", "NF4")},
    "precision": {"auto": ("automatic", "自动")},
    "format": {
        "auto": ("find it", "自动识别"),
        "messages": ("chat messages", "对话消息"),
        "sharegpt": ("ShareGPT", "ShareGPT"),
        "prompt_completion": ("prompt and answer", "提示与回答"),
        "instruction": ("instruction, input, output", "指令、输入、输出"),
        "text_label": ("text and label", "文本与标签"),
        "source_target": ("source and translation", "原文与译文"),
        "preference": ("chosen and rejected", "较好与较差的回答"),
        "summary": ("document and summary", "文档与摘要"),
        "extraction": ("text and what to extract", "文本与抽取内容"),
    },
}


def texts(lang: int) -> dict[str, str]:
    """{key: text} of all choices, in English (0) or Chinese (1)."""
    return {key(name, value): words[lang] for name, values in CHOICES.items() for value, words in values.items()}


def key(name: str, value: str) -> str:
    return f"choice_{name}_{value}"


def shown(name: str, value: object, lang: str) -> str:
    """A setting's value as its form shows it."""
    words = CHOICES.get(name, {}).get(str(value))
    if words:
        return words[lang == "zh"]
    return f"{value:.10g}" if isinstance(value, float) else str(value)
