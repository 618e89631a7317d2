"""Keep on disk what has to outlive the process: definitions, their history, counters, where links were."""
