# Marks a binary log that was closed as one that was not, before the server starts, so that it asks the log what became of
# transactions that are prepared in InnoDB. A MariaDB 10.11 that is shut down while it replicates may leave one that the log has;
# it then finds the log closed, does not look there, and does not start. The mark is what a running server sets
# (LOG_EVENT_BINLOG_IN_USE_F, of the event that describes the format), and no checksum has it.
import os
import sys

data = sys.argv[1]
for name in os.listdir(data):
    base, ext = os.path.splitext(os.path.join(data, name))
    if ext != ".state" or not os.path.exists(base + ".index"):  # a log that was closed has one
        continue
    with open(base + ".index") as index:
        names = index.read().split()
    with open(os.path.join(data, os.path.basename(names[-1])), "r+b") as log:
        head = log.read(22)
        if len(head) == 22 and head[:4] == b"\xfebin" and head[8] == 15:
            log.seek(21)
            log.write(bytes([head[21] | 1]))
