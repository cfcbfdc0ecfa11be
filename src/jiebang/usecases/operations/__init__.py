"""What runs the installation: start, tasks, messages, gauges, the audit of everything."""
