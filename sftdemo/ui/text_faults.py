"""What the data's faults and notes say in Chinese; the core writes them in English, as on the command line.

A value in braces is any text; with :d a number, :w a word, :r a quoted text, with the name of a part (:kind) one of PARTS.
"""

from __future__ import annotations

import re
import string
from functools import cache

NOTES = {
    "Columns not used, since {why:why}: {names}.": "未使用的列（{why}）：{names}。",
    "Translation from {source} to {target}; the other way: --columns {pairs}": "从 {source} 译为 {target}；反方向：--columns {pairs}",
    "{column:r} is not shown again: it stands in {holder:r} already.": "{column} 不再重复显示：{holder} 中已有。",
    "{n:d} questions have no answer in their text: 'unanswerable' is learned there.": "{n} 个问题在文本中没有答案：学习回答 'unanswerable'。",
    "{n:d} rows have several right answers: the first is learned, the others are references.": "{n} 行有多个正确答案：学习第一个，其余作为参考答案。",
    "{n:d} answers are lists or objects: they are learned as JSON.": "{n} 个回答是列表或对象：按 JSON 学习。",
    "{n:d} conversations open with the assistant: that turn is read, not learned.": "{n} 段对话以助手开头：这条消息只读不学。",
    "{n:d} conversations go on after their last learned answer: what follows was left off.": "{n} 段对话在最后一个要学习的回答之后还有内容：已略去。",
    "{n:d} assistant turns have the weight 0: they are read, not learned.": "{n} 条助手消息的权重为 0：只读不学。",
    "{n:d} rows were left out: {why:why}.": "已略过 {n} 行：{why}。",
    # How a file was read; its name stands before it.
    "{file} isn't UTF-8; it is read as {encoding:w}, in which it says {sample:r}. If that is wrong, name another with --encoding.": "{file} 不是 UTF-8，已按 {encoding} 读取，其中有 {sample}。如果不对，请用“编码”（--encoding）指定。",
    "it is {kind:w} by its content, and was read as such.": "内容是 {kind}，已按此读取。",
    "it is text by its content, and was read as such.": "内容是文本，已按文本读取。",
    "it is JSON by its content, and was read as such.": "内容是 JSON，已按 JSON 读取。",
    "it is a table by its content, not JSON, and was read as such.": "内容是表格而不是 JSON，已按表格读取。",
    "it is in Python's notation, and was read as such.": "内容是 Python 写法，已按此读取。",
    "none of its rows can be read; the first fault stands for {n:d}.": "没有一行可以读取；只列出第一处错误，共 {n} 处。",
    "Blank rows skipped: {n:d}.": "已跳过空行：{n} 行。",
    "Rows with surplus empty cells, which were skipped: {n:d}.": "有多余空单元格的行：{n} 行，多余部分已跳过。",
    "Rows that repeat the header, which were skipped: {n:d}.": "重复表头的行：{n} 行，已跳过。",
    "Rows above the header, which are not read: {n:d} ({first:r}).": "表头上方有 {n} 行（{first}），未读取。",
    "Columns without a name or a value, which were skipped: {n:d}.": "没有名称也没有内容的列：{n} 列，已跳过。",
    "the first column only counts the rows, and is not read.": "第一列只是行号，未读取。",
    "the column {name:r} stands there twice with the same values; it is read once.": "列 {name} 出现两次且内容相同，只读取一次。",
    "it is read without a header; its columns are called {names}.": "按没有表头读取，各列命名为 {names}。",
    "its first row is data; its columns are called {names}. If that row is a header, say --header yes.": "第一行是数据，各列命名为 {names}。如果第一行是表头，请把“表头”（--header）设为 yes。",
    "its quotes are plain characters, as rows can be told apart only so.": "引号按普通字符读取，否则无法区分各行。",
    "it holds {n:d} lists one after another, which were joined.": "含有 {n} 个相连的列表，已合并。",
    "its rows are those under {key:r}.": "数据行取自 {key}。",
    "Lines that end in a comma, which was left out: {n:d}.": "以逗号结尾的行：{n} 行，逗号已忽略。",
    "Lines that are comments, which were skipped: {n:d}.": "注释行：{n} 行，已跳过。",
    "Lines with comments or surplus commas, which were left out: {n:d}.": "含有注释或多余逗号的行：{n} 行，已忽略这些内容。",
    "Lines with tabs or other control characters inside their strings, which were kept: {n:d}.": "字符串中有制表符等控制字符的行：{n} 行，已保留。",
    "Lines in Python's notation, which were read as such: {n:d}.": "用 Python 写法的行：{n} 行，已按此读取。",
    "comments or surplus commas in it were left out.": "其中的注释或多余逗号已忽略。",
    "{file} is read as {encoding:w}.": "{file} 按 {encoding} 读取。",
    "{n:d} rows at fault were left out; each is listed.": "{n} 行有问题，已略过并列出。",
    "{n:d} faults were repaired; each is listed.": "{n} 处错误已修复并列出。",
    "Preference pairs: the chosen answer is learned, the rejected one is left aside.": "偏好数据：学习较好的回答，较差的回答不使用。",
    "Personal data: names and postal addresses are not found by this step; look for them yourself.": "个人信息：这一步不识别姓名和邮寄地址，请自行检查。",
    "Train rows left out, since another of the sets holds them out: {n:d}.": "已略过 {n} 行训练数据：它们是另一份数据的留出行。",
    "{split:split}_size is left aside: the data brings its own {split} rows.": "数据自带{split}，“{split}大小”不起作用。",
    "{split:split} has {n:d} rows, not {m:d}: what belongs together stays together.": "{split}有 {n} 行，而不是 {m} 行：应在一起的行不会拆开。",
    "{n:d} groups stand both in train and in held-out rows.": "{n} 个组同时出现在训练集和留出数据中。",
}

PARTS = {
    "note": NOTES,
    "split": {"train": "训练集", "validation": "验证集", "test": "测试集"},
    "splits": {"test and validation": "测试集和验证集", "test": "测试集", "validation": "验证集"},
    "found": {
        "{n:d} in {split:split}": "{split} {n} 行",
        "{n:d} in {split:split}, {m:d} in {other:split}": "{split} {n} 行，{other} {m} 行",
    },
    "asked": {
        "{n:d} for {split:split}": "{split} {n} 行",
        "{n:d} for {split:split} and {m:d} for {other:split}": "{split} {n} 行、{other} {m} 行",
    },
    "role": {"user": "用户", "assistant": "助手", "system": "系统"},
    "why": {
        "no turn is to be learned (weight 0)": "没有要学习的消息（权重为 0）",
        "an annotator rejected them": "标注员拒绝了它们",
        "an annotator ignored them": "标注员跳过了它们",
        "their annotation was cancelled": "标注已取消",
        "their answers were discarded": "回答已被弃用",
        "nobody has annotated them": "没有人标注过",
        "they are marked as unwanted": "它们被标为不想要的回答",
        "they have no label": "它们没有标签",
        "they number or name the rows": "它们只是行的编号或名称",
        "they are the same in every row": "它们在每一行都相同",
        "they repeat what is used": "它们重复了已使用的内容",
    },
    "what": {"The field": "字段", "Turn {n:d}": "第 {n} 条消息"},
    "kind": {
        "null": "空值",
        "text": "文本",
        "true or false": "布尔值",
        "a list": "列表",
        "an object": "对象",
        "a number": "数字",
        "{type}": " {type}",
    },
    "flaw": {
        "holds the control character {code}": "含有控制字符 {code}",
        "holds U+FFFD, the sign for a lost character": "含有 U+FFFD，即丢失字符的标记",
        "is wrongly decoded: {bad:r} should be {good:r}": "解码有误：{bad} 应为 {good}",
    },
    "what_else": {
        "a Git LFS pointer": " Git LFS 指针",
        "a web page (HTML)": "网页（HTML）",
        "a PDF": " PDF",
        "an old Excel or Word file": "旧版 Excel 或 Word 文件",
        "a ZIP": " ZIP",
        "an SQLite database": " SQLite 数据库",
        "a picture": "图片",
        "packed with {name:w}": " {name} 压缩文件",
        "packed twice with gzip": "两次压缩的 gzip 文件",
        "a {name} archive": " {name} 压缩包",
        "a Python pickle": " Python pickle",
        "a NumPy array": " NumPy 数组",
        "an {name} file": " {name} 文件",
        "{name}": " {name}",
    },
    "size": {
        "unpacked more than {n} GB": "解压后超过 {n} GB",
        "unpacked {n} GB": "解压后有 {n} GB",
        "more than {n} GB": "超过 {n} GB",
        "{n} GB": "有 {n} GB",
    },
    "json": {
        "Expecting property name enclosed in double quotes": "应有用双引号括起的键名",
        "Expecting ',' or ']'": "应有 ',' 或 ']'",
        "Expecting {mark:r} delimiter": "应有 {mark}",
        "Expecting {mark:r}": "应有 {mark}",
        "Expecting an object or a list": "应有对象或列表",
        "Expecting value": "应有一个值",
        "Extra data": "有多余的内容",
        "Illegal trailing comma before end of {what}": "的 {what} 末尾多了一个逗号",
        "Invalid control character at": "有不允许的控制字符",
        "Invalid \\escape": "的反斜杠转义有误",
        "Invalid \\uXXXX escape": "的 \\u 转义有误",
        "Unterminated string starting at": "开始的字符串没有结束",
        "{reason}": "：{reason}",
    },
    # Why others' code gave up; what isn't here stays in its words.
    "reason": {
        "it is neither a file nor a stream of Arrow": "既不是 Arrow 文件，也不是 Arrow 流",
        "{mark:r} expected after {last:r}": "{last} 之后应为 {mark}",
        "truncated data": "数据不完整",
        "Not a gzipped file ({start})": "不是 gzip 文件（{start}）",
        "Compressed file ended before the end-of-stream marker was reached": "压缩数据不完整",
        "{reason}": "{reason}",
    },
}

SENTENCES = {
    # Files.
    "The file is empty.": "文件是空的。",
    "The file has no rows.": "文件中没有数据行。",
    "Give a file with rows.": "请提供有数据行的文件。",
    "The file has {size:size}; the most is {most} GB.": "文件{size}，上限是 {most} GB。",
    "Give a part of it.": "请只提供其中一部分。",
    "Files that end in {suffix:r} can't be read.": "无法读取以 {suffix} 结尾的文件。",
    "Give one of: {suffixes}.": "请提供以下格式之一：{suffixes}。",
    "This isn't a ZIP that can be read.": "这不是可读取的 ZIP 文件。",
    "Pack it anew.": "请重新打包。",
    "No data file is in the ZIP; it holds nothing.": "ZIP 是空的，没有数据文件。",
    "No data file is in the ZIP; it holds {names}.": "ZIP 中没有数据文件，只有 {names}。",
    "Pack one of: {suffixes}.": "请打包以下格式之一：{suffixes}。",
    "The ZIP is locked with a password.": "ZIP 有密码。",
    "Pack it without one.": "请不设密码重新打包。",
    "{name:r} can't be unpacked: {reason:reason}.": "无法解压 {name}：{reason}。",
    "The ZIP holds {n:d} data files ({names}).": "ZIP 中有 {n} 个数据文件（{names}）。",
    "The file is {what:what_else}, not data.": "文件是{what}，不是数据。",
    "Download the file itself.": "请下载文件本身。",
    "The file is {what:what_else}, not a table of rows.": "文件是{what}，不是数据表。",
    "Save its rows as .xlsx, .csv or .jsonl.": "请把数据存为 .xlsx、.csv 或 .jsonl。",
    "The file is a tar archive.": "文件是 tar 包。",
    "Unpack it, and give the file inside.": "请解包后提供里面的文件。",
    "No comma, tab, semicolon or | divides the lines into columns.": "没有逗号、制表符、分号或 | 把各行分成列。",
    "Give a table with a header, or JSON.": "请提供带表头的表格，或 JSON。",
    "Name them train, validation and test, or pack one.": "请命名为 train、validation 和 test，或只打包一个。",
    "The file can't be read as {encoding} at byte {n:d}: {reason:reason}.": "文件无法按 {encoding} 读取，第 {n} 个字节有误：{reason}。",
    "The file is neither text in a known encoding nor a known binary format.": "文件既不是已知编码的文本，也不是已知的二进制格式。",
    "Save it as UTF-8.": "请存为 UTF-8。",
    "The text isn't UTF-8; it may be {one}: {sample:r}, or {other}: {second:r}.": "文本不是 UTF-8，可能是 {one}：{sample}，也可能是 {other}：{second}。",
    "Say which with --encoding {one:w} or --encoding {other:w}.": "请用“编码”（--encoding）指定 {one} 或 {other}。",
    "The file holds NUL bytes: it is damaged, or no text file at all.": "文件含有 NUL 字节：文件已损坏，或不是文本文件。",
    "Give a text file.": "请提供文本文件。",
    "The line holds a NUL byte, which no text has.": "该行含有文本中不会有的 NUL 字节。",
    "The line isn't {encoding}.": "该行不是 {encoding}。",
    "This isn't a workbook that can be read: {reason:reason}.": "这不是可读取的 Excel 文件：{reason}。",
    "Save it anew, or its rows as .csv.": "请重新保存，或把数据存为 .csv。",
    "The workbook is locked with a password.": "Excel 文件有密码。",
    "The workbook has no sheet {name:r}; it has {names}.": "Excel 文件中没有工作表 {name}，只有 {names}。",
    "Name one with --sheet.": "请用“工作表”（--sheet）指定。",
    "Only the sheet {name:r} is read; there are also {names}.": "只读取了工作表 {name}，此外还有 {names}。",
    "Name another with --sheet.": "可用“工作表”（--sheet）指定另一个。",
    "The sheet has more cells than can be read.": "工作表的单元格太多，无法读取。",
    "Save its rows as .csv.": "请把数据存为 .csv。",
    "Cells with an error of Excel ({kinds}) are read as blank: {n:d}.": "有 {n} 个单元格是 Excel 错误值（{kinds}），按空白读取。",
    "Mend their formulas.": "请修正公式。",
    "No row begins in line {n:d}, which header names.": "表头设为第 {n} 行，但该行没有内容。",
    "Name one of lines {n:d} to {m:d} that has cells.": "请指定第 {n} 至 {m} 行中有内容的一行。",
    "The header has {name:r}, which may be data.": "表头中有 {name}，可能是数据。",
    "If there is no header, say --header no.": "如果没有表头，请把“表头”（--header）设为 no。",
    "Lines {n:d} to {m:d} became one row: a quote opens in the first and closes in the last.": "第 {n} 至 {m} 行成了一行：引号在首行开始，到末行才结束。",
    "Lines {n:d} and {m:d} became one row: a quote opens in the first and closes in the last.": "第 {n} 行和第 {m} 行成了一行：引号在前一行开始，到后一行才结束。",
    "Double each quote that stands inside a cell, or take it out.": "单元格内的引号请写两遍，或删去。",
    "Byte {n:d} of the line, {code}, isn't UTF-8.": "该行第 {n} 个字节（{code}）不是 UTF-8。",
    "Save the file as UTF-8.": "请把文件存为 UTF-8。",
    "This isn't a Parquet file that can be read: {reason:reason}.": "这不是可读取的 Parquet 文件：{reason}。",
    "This isn't an Arrow file that can be read: {reason:reason}.": "这不是可读取的 Arrow 文件：{reason}。",
    "Write it anew.": "请重新生成文件。",
    # JSON and tables.
    "This isn't JSON: it is nested too deeply.": "这不是可读取的 JSON：嵌套太深。",
    "This isn't JSON: a number in it has too many digits.": "这不是可读取的 JSON：其中有位数过多的数字。",
    "This isn't JSON: {json:json} at character {n:d}.": "这不是正确的 JSON：第 {n} 个字符处{json}。",
    "Mend the line, or remove it.": "请修改或删除该行。",
    "Mend it; what follows could not be read.": "请修改；其后的内容未能读取。",
    "The row is {kind:kind}, not an object.": "这一行是{kind}，不是对象。",
    'Write it as {{"column": value, …}}.': '请写成 {{"列名": 值, …}}。',
    "The row holds half a character (a lone \\ud8…).": "这一行含有半个字符（单独的 \\ud8…）。",
    "Write the character out, or remove it.": "请写出完整的字符，或删除它。",
    "The header has {names} twice.": "表头中 {names} 重复。",
    "Rename one of them.": "请给其中一个改名。",
    "The row has {n:d} cells, the header {m:d}.": "这一行有 {n} 个单元格，表头有 {m} 个。",
    "Put a cell that holds the delimiter or a line break in double quotes.": "单元格中有分隔符或换行时，请用双引号括起来。",
    "A quote that opens here is never closed.": "此处开始的引号没有闭合。",
    "A quote that opens here is never closed; lines {n:d} to {m:d} could not be read.": "此处开始的引号没有闭合；第 {n} 至 {m} 行未能读取。",
    "Close it.": "请补上引号。",
    "The cells can't be told apart: {reason:reason}.": "无法区分单元格：{reason}。",
    "Double each quote that stands inside a cell.": "单元格内的引号请写两遍。",
    # Layouts.
    "No known layout has these columns: {columns}.": "这些列不符合任何已知格式：{columns}。",
    "Name them with columns, as text=tweet,label=mood; the layouts are: {layouts}.": "请指定各列的用途（columns），例如 text=tweet,label=mood；可用格式：{layouts}。",
    "No known layout has these columns: {columns}. By their values they may be {pairs}.": "这些列不符合任何已知格式：{columns}。从内容看可能是 {pairs}。",
    "If so, read them with {flag}; else name the right ones.": "如果正确，请用 {flag} 读取；否则请指定正确的列。",
    "Columns that are not used: {names}.": "未使用的列：{names}。",
    "Show one with the instruction, as {{name}}, or give it a role with --columns.": "可在提问方式中写 {{列名}} 来显示，或用 --columns 指定用途。",
    "The column {column:r} holds numbers, not train, validation or test; it was not used.": "{column} 列是数字，不是 train、validation 或 test；没有使用。",
    "Write train, validation or test, or split with --test-size.": "请写 train、validation 或 test，或用 --test-size 划分。",
    "{column:r} counts the options from 0 or from 1, and the data doesn't tell; it was read as counted from 0.": "从数据看不出 {column} 的选项从 0 还是从 1 数起；已按从 0 数起读取。",
    "Count from 0, or write letters.": "请从 0 数起，或写字母。",
    "The layout {layout} needs other columns: {columns}.": "{layout} 格式需要其他列；现有：{columns}。",
    "Name them with columns, as text=tweet,label=mood; it is: {layout}.": "请指定各列的用途（columns），例如 text=tweet,label=mood；该格式为：{layout}。",
    "The row is laid out as {layout}, most rows as {most}.": "这一行是 {layout} 格式，多数行是 {most} 格式。",
    "Give every row one layout.": "请让所有行使用同一种格式。",
    "The row has no such field; it has: {columns}.": "这一行没有该字段；现有：{columns}。",
    "Add it, or remove the row.": "请补上，或删除该行。",
    # Fields.
    "The field is missing.": "缺少该字段。",
    "The field is empty.": "字段是空的。",
    "Fill it in, or remove the row.": "请填写，或删除该行。",
    "The field is {kind:kind}, not text.": "字段是{kind}，不是文本。",
    "Give text.": "请提供文本。",
    "Put it in quotes.": "请加上引号。",
    "It was taken as text.": "已当作文本。",
    "{what:what} {flaw:flaw}.": "{what}{flaw}。",
    "Write it out rightly, or repair it with on_fault fix.": "请改正，或在“有问题的行”中选 fix 来修复。",
    "It was repaired.": "已修复。",
    "The label {label:r} is {best:r} in another spelling ({n:d} rows, and {m:d}).": "标签 {label} 与 {best} 只是写法不同（分别有 {n} 行和 {m} 行）。",
    "Spell them alike.": "请统一写法。",
    "It was written {best:r}.": "已改写为 {best}。",
    "Line {n:d} asks the same and has the label {label:r}.": "第 {n} 行的提问相同，标签却是 {label}。",
    "Give both the right one, or remove one.": "请给两行正确的标签，或删除其中一行。",
    "The chosen answer is the same as the rejected one.": "较好的回答与较差的回答相同。",
    "Check that the row is right.": "请检查该行是否正确。",
    "The chosen text has no prompt.": "较好的回答没有对应的提问。",
    "Add a column prompt, or give a list of turns.": "请添加 prompt 列，或改用消息列表。",
    "The answer is the same as the question.": "回答与提问相同。",
    "Check that the columns are the right ones.": "请检查各列是否选对。",
    "The history is no list of question and answer.": "历史对话不是由问答组成的列表。",
    'Write [["…", "…"], …].': '请写成 [["…", "…"], …]。',
    "The references are no list of texts.": "其他正确答案不是文本列表。",
    'Write ["…", "…"].': '请写成 ["…", "…"]。',
    "The field is no list of entities.": "字段不是实体列表。",
    "The field marks the characters {start:d} to {end:d} of a text of {n:d}.": "字段标注了第 {start} 到 {end} 个字符，而文本只有 {n} 个字符。",
    "The field holds an entity without a place or a text.": "字段中有实体既没有位置也没有文本。",
    "The field holds numbers, not the names of tags (B-PER, I-PER, O).": "字段是数字，不是标签名称（B-PER、I-PER、O）。",
    "The field has {n:d} tags for {m:d} tokens.": "字段有 {n} 个标签，而 token 有 {m} 个。",
    "Mend it, or remove the row.": "请修改，或删除该行。",
    # Conversations.
    "The field is no list of turns.": "字段不是消息列表。",
    'Write [{{"role": "user", "content": "…"}}, …].': '请写成 [{{"role": "user", "content": "…"}}, …]。',
    "Turn {n:d} has a tool call without a name.": "第 {n} 条消息中的工具调用没有名称。",
    'Write {{"name": "…", "arguments": {{…}}}}.': '请写成 {{"name": "…", "arguments": {{…}}}}。',
    "Turn {n:d} is a tool's answer, and the assistant didn't ask for it.": "第 {n} 条消息是工具的结果，但助手没有发出调用。",
    "Add the assistant's call before it, or remove the row.": "请在它之前补上助手的调用，或删除该行。",
    "Turn 1 is a tool's answer.": "第 1 条消息是工具的结果。",
    "Add the question and the call before it.": "请在它之前补上提问和调用。",
    "Turn {n:d} holds {what}, which can't be trained on.": "第 {n} 条消息含有无法训练的内容（{what}）。",
    "Say it in words, or remove the row.": "请改用文字，或删除该行。",
    "Turn {n:d} has the weight {value}.": "第 {n} 条消息的权重是 {value}。",
    "Give 1, or 0 for a turn that is only read.": "请写 1；只读不学的消息写 0。",
    "The tools are no list of functions.": "工具不是函数列表。",
    'Write [{{"name": "…", "parameters": {{…}}}}].': '请写成 [{{"name": "…", "parameters": {{…}}}}]。',
    "Turn {n:d} is {kind:kind}, not an object.": "第 {n} 条消息是{kind}，不是对象。",
    "Give it a role and content.": "请给出 role 和 content。",
    "Turn {n:d} has no role.": "第 {n} 条消息没有角色。",
    "Turn {n:d} has the unknown role {role}.": "第 {n} 条消息的角色 {role} 无法识别。",
    "Use system, user, assistant or tool.": "请用 system、user、assistant 或 tool。",
    "Turn {n:d} has no content.": "第 {n} 条消息没有内容。",
    "Turn {n:d} has {kind:kind} for content, not text.": "第 {n} 条消息的内容是{kind}，不是文本。",
    "Give it text.": "请填写文本。",
    "Turn {n:d} is empty.": "第 {n} 条消息是空的。",
    "Turn {n:d} is a system turn.": "第 {n} 条消息是系统提示。",
    "Only the first turn may be one.": "只有第一条可以是系统提示。",
    "Turns {n:d} and {m:d} are both the {role:role}'s.": "第 {n} 条和第 {m} 条消息都是{role}的。",
    "Join them, or add the turn between.": "请合并，或补上中间的消息。",
    "They were joined.": "已合并。",
    "There is no assistant turn.": "没有助手的消息。",
    "Add the answer, or remove the row.": "请补上回答，或删除该行。",
    "The last turn is not the assistant's.": "最后一条消息不是助手的。",
    "Add the answer, or remove that turn.": "请补上回答，或删除这条消息。",
    "It was cut off.": "已删去。",
    "There is no user turn.": "没有用户的消息。",
    "Add the question, or remove the row.": "请补上提问，或删除该行。",
    # Splits.
    "The row has no split.": "这一行没有写明划分。",
    "{value} is no split.": "{value} 不是划分名称。",
    "Use train, validation or test.": "请用 train、validation 或 test。",
    "No row is left.": "没有剩下任何行。",
    "Give rows without faults, or clean less.": "请提供没有问题的行，或减少清洗。",
    "No row is in train.": "训练集没有数据。",
    "Give train rows.": "请提供训练行。",
    "No row is in train ({found:found}).": "训练集没有数据（{found}）。",
    "Give train rows, or leave the split column out.": "请提供训练行，或去掉划分列。",
    "The label {label:r} is only in {split:split}.": "标签 {label} 只出现在{split}中。",
    "Add rows with it to train, or take it out.": "请在训练集中加入有该标签的行，或去掉该标签。",
    "The {n:d} train rows make {m:d} that are independent of each other; {splits:splits} can't be taken from them.": "{n} 行训练数据中只有 {m} 份互不相关，无法从中划出{splits}。",
    "Give at least {n:d}, of different groups and with different texts.": "请至少提供 {n} 行，组和文本各不相同。",
    "Of {n:d} rows, {asked:asked} leave none for train.": "共 {n} 行，{asked}之后训练集就没有数据了。",
    "Ask for fewer, or give more rows.": "请减小验证集或测试集，或提供更多行。",
    "No row can be taken from train for {split:split} without taking a label's last one.": "无法从训练集划出{split}：那样会拿走某个标签的最后一行。",
    "Give at least three rows of each label.": "每个标签请至少提供三行。",
    "Every train row is a leak.": "每一行训练数据都出现在留出数据中。",
    "Give train rows of their own.": "请另外提供训练行。",
    "The row has {n:d} tokens; max_length is {limit:d}.": "这一行有 {n} 个 token，超过 max_length（{limit}）。",
    "Raise max_length, shorten the row, or leave it to on_long.": "请调大 max_length、缩短这一行，或由 on_long 处理。",
    # The model's chat template, and the row that is looked at.
    "This model has no chat template; choose a chat (instruct) model.": "该模型没有对话模板；请换用对话（instruct）模型。",
    "The model's chat template refuses this conversation: {reason:reason}.": "模型的对话模板不接受这段对话：{reason}。",
    "This model's tokenizer doesn't tell where its tokens stand in the text; choose another model.": "该模型的分词器不能给出 token 在文本中的位置；请换一个模型。",
    "The conversation doesn't end with an assistant's turn.": "对话不是以助手的消息结束。",
    "The chat template ends the assistant's turn with no special token, so the model could never learn to stop; choose a model whose template marks the end of a turn.": "对话模板没有用特殊 token 标出回答的结束，模型学不会停止；请换用有结束符的模型。",
    "The row begins with two BOS tokens ({bos}).": "这一行以两个 BOS（{bos}）开头。",
    "A token spans the prompt and the answer, so the answer can't be masked safely with this tokenizer and template.": "有 token 跨在提示与回答之间，用这个分词器和模板无法准确分出回答。",
    "In chat the template ends the prompt with {ending:r}, which it doesn't write before an answer in training; choose another model.": "对话时模板以 {ending} 结束提示，训练时却不写在回答之前；请换一个模型。",
    "The chat template doesn't write the answer of turn {n:d} as it stands in the data.": "对话模板没有原样写出第 {n} 条消息的回答。",
    "No answer in the conversation is to be learned.": "这段对话里没有要学习的回答。",
    "The model's chat template doesn't write tool calls; choose a model that knows tools.": "模型的对话模板不支持工具调用；请换用支持工具的模型。",
    "The model's chat template doesn't write tool results; choose a model that knows tools.": "模型的对话模板不支持工具结果；请换用支持工具的模型。",
    "The assistant's opening turn is left out.": "已去掉开头的助手消息。",
    "The system prompt is put before the first question.": "已把系统提示放到第一个问题之前。",
    "The assistant's opening turn is left out. The system prompt is put before the first question.": "已去掉开头的助手消息，并把系统提示放到第一个问题之前。",
    "{n:d} rows declare tools, which the model's chat template doesn't write.": "{n} 行声明了工具，而模型的对话模板不会写入工具。",
    "{n:d} rows have thoughts, which the model's chat template doesn't write as it is set.": "{n} 行带有思考过程，而模型的对话模板按当前设置不会写入思考。",
    "They are not used; choose a model whose template knows tools.": "这些工具不会用到；请换用模板支持工具的模型。",
    "They are not used; set thinking to on, or choose a model that thinks.": "这些思考不会用到；请把“思考”设为 on，或换用会思考的模型。",
    "thinking is {value:r}, but the model's chat template has no switch for thoughts; leave it at auto.": "“思考”设为 {value}，但模型的对话模板没有思考开关；请保持 auto。",
    "There is no row {n:d}; the data has rows 1 to {last:d}.": "没有第 {n} 行；数据共有 {last} 行。",
    **NOTES,
    # In mixed data a note has its source before it.
    "{source:source}: {note:note}": "{source}：{note}",
}

_VALUES = {
    "": r".*?",
    "d": r"\d+",
    "w": r"[\w-]+",
    "r": r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"",  # as repr() quotes
    "source": r"(?:(?!: ).)+",  # no value but the last of a sentence may be open at both ends: that takes quadratic time
}


def in_words(text: str, lang: str) -> str:
    """A fault's or a note's text in the language of the page; one that isn't known stays as it is."""
    return _said(text, None) if lang == "zh" else text


def _said(text: str, part: str | None) -> str:
    for pattern, chinese, parts in _known(part):
        if match := pattern.fullmatch(text):
            values = match.groupdict()
            return chinese.format(**values | {name: _said(values[name], of) for name, of in parts.items()})
    return text


@cache
def _known(part: str | None) -> list[tuple[re.Pattern[str], str, dict[str, str]]]:
    """(what the English looks like, the Chinese, which of its values are parts)."""
    found = []
    for english, chinese in (PARTS[part] if part else SENTENCES).items():
        parts = {name: spec for _, name, spec, _ in string.Formatter().parse(english) if name and spec in PARTS}
        found.append((re.compile(_looks(english), re.DOTALL), chinese, parts))
    return found


def _looks(english: str, named: bool = True) -> str:
    """A pattern for the English with any values; a value said twice is the same."""
    made, seen = "", set()
    for text, name, spec, _ in string.Formatter().parse(english):
        made += re.escape(text)
        if named and name in seen:
            made += f"(?P={name})"
        elif name:
            seen.add(name)
            value = _VALUES.get(spec or "") or "|".join(_looks(each, named=False) for each in PARTS[spec or ""])
            made += f"(?P<{name}>{value})" if named else f"(?:{value})"
    return made
