"""编辑数据行时的提示。"""

FAULTS = {
    "There is no file of edits {path!r}.": "没有编辑记录文件 {path!r}。",
    "The edits {path!r} can't be read: {reason}.": "无法读取编辑记录 {path!r}：{reason}。",
    "The file of edits {path!r} {reason}.": "编辑记录文件 {path!r} {reason}。",
    "Line {line} of the edits {path!r} is no edit: it {reason}.": "编辑记录 {path!r} 的第 {line} 行不是一条编辑：{reason}。",
    "Edit {line} takes an edit back, and before it none is left.": "第 {line} 条编辑要撤销一条编辑，但前面已没有可撤销的。",
    "Edits of rows: {changed} values changed, {left_out} rows left out, {added} rows added.": "编辑：修改 {changed} 处，略过 {left_out} 行，新增 {added} 行。",
    "Take the edit out, or give the data that it was made on.": "请删除这条编辑，或使用编辑时的数据。",
    "The edit adds a row as line {line} of {file}, and one stands there.": "这条编辑把新行加为 {file} 的第 {line} 行，但那里已有一行。",
    "The edit leaves out line {line} of {file}, and another row stands there now.": "这条编辑略过 {file} 的第 {line} 行，但那里现在是另一行。",
    "The edit is of {field!r}, which line {line} of {file} doesn't have.": "这条编辑修改 {field!r}，但 {file} 的第 {line} 行没有它。",
    "The edit is of {field!r} in line {line} of {file}, where {current} stands now and not {old}.": "这条编辑修改 {file} 第 {line} 行的 {field!r}，但那里现在是 {current}，而不是 {old}。",
    "The edit is of line {line} of {file}, where no row begins.": "这条编辑针对 {file} 的第 {line} 行，但那里没有数据行。",
    "The edit doesn't say which of the files it is of.": "这条编辑没有说明属于哪个文件。",
    "The edit is of {file!r}, which isn't among the files.": "这条编辑针对 {file!r}，但数据中没有这个文件。",
}
