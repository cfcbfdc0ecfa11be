"""What runs the installation: leases, workers, tasks, outages, recoveries, messages, gauges."""
