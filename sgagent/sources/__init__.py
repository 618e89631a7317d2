"""Sources of definitions: files, HTTPS, etcd and the ECS API."""
