"""Definitions from the ECS API of Alibaba Cloud."""
