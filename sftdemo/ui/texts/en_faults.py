"""Remedies that name a flag of the command line, as the page says them: by the fields and buttons that are in sight."""

from __future__ import annotations

PAGE = {
    "If they are free text, read it with --format prompt_completion.": "If they are free text, choose the format prompt_completion.",
    "Name them with columns, as text=tweet,label=mood; the layouts are: {names}.": "Choose above which column is the prompt and which the answer.",
    "Name them with columns, as text=tweet,label=mood; it is: {layout}.": "Say which column is what under “Columns and wording”; the format needs: {layout}.",
    "If so, read them with {flags}; else name the right ones.": "If so, confirm it above; else choose the right columns there.",
    "Write it out rightly, or repair it with on_fault fix.": "Correct it in the file, or click “Repair what can be repaired”.",
    "Write train, validation or test, or split with --test-size.": "Write train, validation or test, or set the test size below.",
    "Show one with the instruction, as {name}, or give it a role with --columns.": "Show one with the instruction, as {name}, or give it a role under “Columns and wording”.",
    "Give one a role with --columns, as system=name, or leave them out.": "Give one a role under “Columns and wording”, or leave them out.",
    "If so, say --encoding {encoding}.": "If so, set the encoding to {encoding}.",
    "Say which with --encoding {best} or --encoding {other}.": "Set the encoding to {best} or {other}.",
    "its first row is data; its columns are called {names}. If that row is a header, say --header yes.": "its first row is data; its columns are called {names}. If that row is a header, set the header to yes.",
    "If there is no header, say --header no.": "If there is no header, set the header to no.",
    "{file} isn't UTF-8; it is read as {encoding}, in which it says {sample!r}. If that is wrong, name another with --encoding.": "{file} isn't UTF-8; it is read as {encoding}, in which it says {sample!r}. If that is wrong, set another encoding.",
    "Name one with --sheet.": "Name one in the field for the sheet.",
    "Name another with --sheet.": "Name another in the field for the sheet.",
    "Raise max_length, shorten the row, or leave it to on_long.": "Raise the length limit, shorten the row, or choose what becomes of long rows.",
    "Translation from {source} to {target}; the other way: {flags}": "Translation from {source} to {target}; choose the columns the other way round if that is wrong.",
}
