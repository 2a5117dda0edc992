"""What the simulated cloud of provider.py holds, as tests/e2e/src/audit.rs reads it. Not a part of the provider."""

import json, sqlite3, sys, time

SETTLED = time.time() - 0.1  # what was deleted longer ago is gone

database = sqlite3.connect(f"{sys.argv[1]}/cloud.db")
made: dict[str, list[str]] = {}
live: dict[str, list[str]] = {}
clusters, orphans = set(), []
rows = database.execute("SELECT kind, cluster, key, id, deleted FROM resources WHERE id NOT NULL").fetchall()
for kind, cluster, key, id, deleted in rows:
    if kind == "cluster" and deleted is None:
        clusters.add(cluster)
for kind, cluster, key, id, deleted in rows:
    if kind != "machine":
        continue
    made.setdefault(key, []).append(id)
    if deleted is None or deleted > SETTLED:
        live.setdefault(key, []).append(id)
        if cluster not in clusters:
            orphans.append(id)
duplicates = [{"key": key, "ids": ids} for key, ids in made.items() if len(ids) > 1]
if not live:  # the job deletes the cluster too: a network without machines was left behind
    orphans += sorted(clusters)
print(json.dumps({"instances": live, "duplicates": duplicates, "orphans": orphans}))
