"""“运行记录”标签页的简体中文文字，以及给运行改名、备注、删除和恢复时的问题。"""

RUNS = {
    "runs_search": "搜索",
    "runs_search_help": "名称、数据、标签……",
    "runs_order": "排序",
    "runs_more": "显示更多",
    "runs_empty": "还没有训练记录",
    "runs_count": "{k} / {n} 个运行",
    "runs_folder": "运行所在文件夹",
    "runs_delete": "删除",
    "runs_keep": "保留",
    "runs_damaged": "此运行的文件夹已损坏：{reason}。请修复该文件，或删除此运行。",
    "column_run": "运行",
    "column_data": "数据",
    "column_method": "方法",
    "column_when": "日期",
    "column_state": "状态",
    "column_loss": "损失",
    "column_metric": "主要指标",
    "column_time": "用时",
    "column_size": "大小",
    "column_setting": "设置",
    "notes_title": "名称、备注和标签",
    "notes_name": "名称",
    "notes_name_help": "在页面上显示；链接、投票和导出仍使用文件夹名。留空则显示文件夹名。",
    "notes_tags": "标签",
    "notes_tags_help": "用逗号分隔。",
    "notes_text": "备注（只有你能看到）",
    "notes_save": "保存",
    "trash_undo": "撤销",
    "trash_title": "已删除的运行",
    "trash_note": "已删除 <b>{name}</b>，占用 {size}，在回收站保留到 {until}。",
    "trash_size": "{size} · 保留到 {until}",
    "trash_restore": "恢复",
    "trash_remove": "永久删除",
    "trash_sure": "永久删除 {name}？",
    "trash_empty": "回收站是空的。",
    "compare_pick": "对比两到三个运行",
    "compare_title": "并排对比",
}

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
