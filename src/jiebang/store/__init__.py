"""Our own PostgreSQL: embedded servers, pools, migrations, and the platform's tables."""
