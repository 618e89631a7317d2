"""Source of type etcd: publishing, watching, and status reports of hosts."""
