"""What runs on the GPU machine around the trainer: first boot, SSM's commands, and what moves data from and to S3."""
