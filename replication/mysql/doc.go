// Package mysql is the [replication.Engine] for MariaDB 10.6 and later, and for MySQL 8.0.26 and later, over
// github.com/go-sql-driver/mysql. What a server is, it says when it is first asked; a set has servers of one of the two.
//
// With MariaDB all of this is tried on real servers. With MySQL it was never tried on one: it is written from MySQL's
// manual, and its tests run against fakes made from the same manual. Try it on servers of your own before you rely on it;
// see MySQL below. What follows is about MariaDB where it does not say otherwise.
//
// # What a member needs
//
// [ServerConf] gives its my.cnf and [BootstrapSQL] its accounts. Any member can be the primary: all keep binary logs of what
// they apply, with GTIDs in strict mode, and start read-only. Applications' accounts must not have READ_ONLY ADMIN (nor
// SUPER, up to MariaDB 10.10), which ALL PRIVILEGES ON *.* includes, since read_only does not stop them.
//
// # Positions
//
// A position is what @@gtid_binlog_state shows: for each domain and server the number of the last transaction that the
// server wrote and the member has, as in "0-1-9,0-2-12": server 1 wrote up to number 9 of domain 0, then server 2 up to 12.
// So a member that has 0-1-10 is seen to have a transaction of its own, although 10 is less than 12. A domain that ends in
// "+" is not known whole: see [Engine.Compare]. In between two looks a position only grows, unless the member is seeded.
//
// # Relay logs
//
// MariaDB deletes received transactions that are not applied yet when a replication thread is started while both are
// stopped, and when the server starts with its threads. So members start with their threads stopped (skip_slave_start),
// Observe looks into the relay logs of stopped threads, Drain applies them in a way that deletes nothing, and Follow drains
// before it attaches. A member whose server has started again follows on when Follow is called.
//
// # An old primary
//
// One that comes back with nothing of its own just follows. One with transactions that its successor lacks is given up and
// seeded anew, unless [replication.Config.Salvage] names a directory: then [Engine.Save] writes them to a file and [Engine.Rewind]
// takes them back, which costs a comparison of all data instead of a copy. Both run mariadb-binlog on the Manager's host.
//
// MariaDB (10.6.19, 10.11.9 and later) can roll them back itself when it starts after a crash: with init_rpl_role = SLAVE it
// drops the end of its binary log that is not committed in its tables. After a semi-synchronous commit that is what no replica
// has acknowledged, and the file and the comparison are saved. But it drops acknowledged transactions as well, which are
// committed in the tables a moment later. So that may be given to one start only, of a server that has a successor, with
// semi-synchronous replication, and by whoever starts it: it must not be in the my.cnf of a member.
//
// # Twins
//
// [Engine.Import] fills a member of a new set from a server of another one. The histories of the two have no transaction in
// common: the copy begins one of its own, "0-7-1" for server 7, whatever the source's was.
//
// Where the members' volumes are filled from snapshots of the source's instead, everything of the source is there when a server
// starts for the first time: its accounts, what is not scrubbed, whom it follows. [Config].Set gives the set a name that its data
// bears. [BootstrapSQL]'s init_file, which a server runs before it takes a connection, locks data that bears another one or none, and
// ends the server if it cannot. [Engine.Adopt] lets it be scrubbed, and makes it the set's. The two ways leave the same.
//
// # Backups
//
// With [Config.Machines], a backup is of the member's files, which is faster to make and much faster to restore, the more so the
// more there is. There is no option for it: whoever lets commands run on the machines has mariadb-backup there for seeds, and a
// backup that can be restored by files only is one that was made where that works. The accounts are not in the files, but beside them.
//
// Otherwise [Engine.Backup] is a text of SQL statements that this package writes, and not mariadb-dump's, for what is compared: it carries
// each table's checksum and number of rows out of the snapshot that the rows are read in, so that [Engine.Restore] can tell that
// what it has restored is what was there. It is the reading half of Seed, which copies what mariadb-dump 10.11 changes (a FLOAT of
// 16777216 becomes 16777200, a DOUBLE of -0 becomes 0, what is no member of an ENUM becomes its empty member), and the accounts
// without their passwords; and it needs no program on the Manager's host. The client mariadb can load it.
//
// # Copies of files
//
// With [Config.Machines] a member is seeded, backed up and restored by mariadb-backup, which must be installed on the machines (Debian package mariadb-backup;
// [CloudInit] installs it): see [Engine.Seed]. Run is the RunCommand of the provider that the member's pool is of, as root: in
// a cloud that of provider/ssh, with "sudo -n" before the arguments where that signs in as somebody else. For provider/local,
// local.MariaDB.Service gives Stop and Start. Nothing is opened between the machines: the bytes pass through this program.
//
// # Copies over SQL
//
// Without it, and where files cannot be copied, [Engine.Seed] and [Engine.Import] copy rows, of several tables at the same time. No
// two sessions of MariaDB can be given one snapshot, but each knows the place in the binary log that its own is of, which it got
// under the lock under which commits become visible. Two of the same place have the same rows. So snapshots are begun until they agree,
// and none needs a lock that commits would wait for. One table is read over one session, however large it is.
//
// # Stalled storage
//
// The commits of applications show whether a primary's storage works. While nothing has been written to the binary log for a
// second, looks are answered although every commit would wait. Then a primary is probed, once a second, on a connection of its
// own: a row of mysql.scalr_record is written, where there is that table ([Engine.Record]). It is in no binary log, has no
// GTID, waits for no replica, and fails at once where it would wait for a lock. How it ends is no matter; while its commit
// waits for the disk it counts as any other one. So storage that does not return is found within [Config].Stall and a second
// or two, whether anybody writes or not. A replica is never probed, nor is anything else that is read-only.
//
// The probe syncs InnoDB's log, as innodb_flush_log_at_trx_commit says: with 0 or 2 its commit waits for the disk no more than
// an application's does. It does not write to the binary log, whose storage is not tried if it is another one, and it needs no
// space: InnoDB's log has its own beforehand. So a full disk is found, at once, when the first commit waits for it. While a
// probe waits for the disk Fence waits for it, as for any commit, so that only stopping the machine fences such a primary.
//
// # Limits
//
// Replication is of GTIDs and over the default, unnamed connection; members with further named connections are drained and
// promoted with all of them. Events are disabled on replicas (SLAVESIDE_DISABLED) and stay so on a replica that is promoted,
// since MariaDB does not keep which of them had been enabled: enable them after a failover. Rows are expected to be logged
// (binlog_format=ROW). Nobody but the engine should use RESET MASTER or set gtid_binlog_state and gtid_seq_no.
//
// # MySQL
//
// No real MySQL has run this code. A fake that speaks the protocol, refuses every statement that it does not know and
// replicates as the manual says stands in for it: it shows that the engine is consistent with the manual as it was read, not
// that a server is.
//
// [ServerConfMySQL8] gives a member's my.cnf, with the plugins for semi-synchronous replication (also by their old names) and
// for cloning; [BootstrapSQLMySQL8] gives its accounts. Replication is by GTID, with SOURCE_AUTO_POSITION. A position is a
// GTID set, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:7", with tags since 8.3: sets are compared and counted exactly. A
// primary has what its sessions are about to commit too (gtid_owned): it is in the binary log while it waits for a replica.
//
//   - Fence sets super_read_only, which holds for every account. MySQL lets a commit that waits for a replica wait on after
//     its session has been ended; so Fence cuts such sessions off and then switches semi-synchronous replication off, which
//     acknowledges them to nobody. SetSemiSync, where it is on, ends the sessions; their commits end with the next
//     acknowledgement.
//   - Received transactions outlive STOP and START REPLICA and, with relay_log_recovery=OFF, a restart. CHANGE REPLICATION
//     SOURCE deletes them, so Follow drains first. A delay is taken away by a change that names the place in the relay
//     logs.
//   - Seed is CLONE INSTANCE: the member fetches the source's files, accounts included, as the replication account, which
//     needs BACKUP_ADMIN there. The member then starts again, which takes systemd or mysqld_safe. Both run the same version (from 8.0.37 on, the same series).
//     Everything but InnoDB's tables comes empty. A Manager sees the member go and come back with the data.
//   - The passwords of caching_sha2_password go over TLS if Config.TLS is set, otherwise encrypted by the server's public key,
//     which nobody checks.
//
// What MariaDB has and MySQL has not, here: Import, Adopt and Config.Set, Backup and Restore, Claim and Record (errors.ErrUnsupported), so that a verdict
// is told by the Manager that has seen the recovery through, or not; ErrStalled, so that a primary whose disk is full
// or stuck is hung at best; Status.Acked, of which MySQL's replicas say nothing, so that under Durability a Manager that has
// not seen the lost primary itself promotes only when all other members answer; [CloudInit].
package mysql
