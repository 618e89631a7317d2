"""Keep definitions in etcd: follow them, publish them, and tell how hosts do."""
