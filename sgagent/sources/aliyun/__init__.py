"""Source of type aliyun: definitions from the ECS API of Alibaba Cloud."""
