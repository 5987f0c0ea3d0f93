// Package mysql is the [replication.Engine] for MariaDB 10.6 and later, over github.com/go-sql-driver/mysql.
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
// # Twins
//
// [Engine.Import] fills a member of a new set from a server of another one. The histories of the two have no transaction in
// common: the copy begins one of its own, "0-7-1" for server 7, whatever the source's was.
//
// # Limits
//
// Replication is of GTIDs and over the default, unnamed connection; members with further named connections are drained and
// promoted with all of them. Events are disabled on replicas (SLAVESIDE_DISABLED) and stay so on a replica that is promoted,
// since MariaDB does not keep which of them had been enabled: enable them after a failover. Rows are expected to be logged
// (binlog_format=ROW). Nobody but the engine should use RESET MASTER or set gtid_binlog_state and gtid_seq_no.
package mysql
