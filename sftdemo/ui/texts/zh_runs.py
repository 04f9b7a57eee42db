"""“运行记录”标签页的简体中文文字，以及给运行改名、备注、删除和恢复时的问题。"""

RUNS: dict[str, str] = {}

FAULTS = {
    "The {what} must be text.": "{what}必须是文字。",
    "The {what} has a character that can't be shown ({code}); leave it out.": "{what}里有无法显示的字符（{code}），请去掉它。",
    "The {what} has {n} characters; {most} at most.": "{what}有 {n} 个字符，最多 {most} 个。",
    "{n} tags are too many; a run has {most} at most.": "{n} 个标签太多了，一个运行最多 {most} 个。",
    "name": "名称",
    "note": "备注",
    "tag": "标签",
    "Another run is called {name!r} ({folder}); give this one another name.": "已有名为 {name!r} 的运行（{folder}），请换一个名称。",
    "{n} runs are called {name!r}: {names}; give one of these.": "有 {n} 个运行名为 {name!r}：{names}；请指定其中一个。",
    "runs {action} needs the name of a run.": "runs {action} 需要给出运行的名称。",
    "--for-good belongs to runs delete.": "--for-good 只用于 runs delete。",
    "It is: runs {action} {needs}, with quotes around what has blanks.": "用法：runs {action} {needs}；含空格的内容请加引号。",
    "Run {name} can't be moved to the trash, which is on another disk; delete it with `runs delete --for-good`.": (
        "无法把运行 {name} 移到回收站：回收站在另一块磁盘上；请用 `runs delete --for-good` 删除。"
    ),
    "There is no deleted run {name!r}; runs can be restored for {days} days.": (
        "回收站里没有运行 {name!r}；删除后 {days} 天内可以恢复。"
    ),
    "There is another run named {name!r} now; delete that one, then restore this.": (
        "现在已有另一个名为 {name!r} 的运行；请先删除它，再恢复这一个。"
    ),
}
