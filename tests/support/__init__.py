"""What several tests share: databases, golden cases, small tools."""
