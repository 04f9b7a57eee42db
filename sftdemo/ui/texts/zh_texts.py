"""核心代码的句子的中文：左边是英文模板，右边的花括号与左边相同。"""

TEXTS = {
    # 多个句子或多行合成的文字，以及数据问题的位置。
    "{first} {rest}": "{first}{rest}",
    "{first}\n{rest}": "{first}\n{rest}",
    "{place}: {what}": "{place}：{what}",
    "{place}, field {field!r}: {what}": "{place}，字段 {field!r}：{what}",
    "{file}, line {line}": "{file} 第 {line} 行",
    "… and {n} more; `python -m sftdemo check` lists them all.": "……另有 {n} 处；运行 `python -m sftdemo check` 可全部列出。",
}
