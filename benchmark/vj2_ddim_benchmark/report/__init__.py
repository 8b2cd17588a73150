"""The report of a race for people: rows, tables, pictures, one page as Markdown and as HTML."""
