"""Source of type file: a document, or a directory of documents, on this host."""
