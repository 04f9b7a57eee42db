"""Files to rows: archives, encodings, delimited text, JSON, workbooks, Parquet, CoNLL."""
