// Package pool is the application's side of a replicated database: two plain [database/sql.DB], one that writes to whoever
// is the primary now and one that reads from replicas, held through a change of primary.
//
//	client, err := mysql.NewClient(config)                               // github.com/scalr-go/scalr/replication/mysql
//	db, err := pool.Open(pool.Config{Driver: client, Addrs: []string{"db.shop.internal:3306"}})
//	db.Writer.ExecContext(ctx, "INSERT …")
//	db.Reader.QueryContext(ctx, "SELECT …")
//
// They are what every library over database/sql takes, and need nothing of the caller.
//
// # A change of primary
//
// A connection that Writer opens waits, for [Config.Wait] at most, until there is a primary that takes writes. One that is
// in the pool already is given up as soon as the primary is known to be another one. A statement that the old primary
// rejects because it is read-only has done nothing, and is sent to the new one: the caller sees a pause and no error. So it
// is with the beginning of a transaction, and with its first statement, unless something was run on its sql.Conn before it. A later
// statement within a transaction that is rejected fails with [ErrRejected], since only the caller knows what went before; [DB.Tx]
// runs the whole of it again. With [Config.Manager] a planned change rejects none that ends soon: new ones wait from its beginning
// on, and those that are open have 50 ms to end.
//
// A statement that was under way when its server was lost may have taken effect or not. It is never sent again: it fails
// with [ErrAmbiguous], at once where the connection breaks, and as soon as there is another primary where the server hangs.
//
// # Reads
//
// Reader's sessions are read-only, so that a write that goes astray is refused, and a read whose server is lost is sent to
// another one. Replicas that are more than [Config.MaxLag] behind are not read from. What no replica may serve goes to the
// primary, [Config.Spill] statements at a time, so that replicas that fall behind do not take the primary with them.
// Statements that lock rows or depend on the session (FOR UPDATE, @variables, LAST_INSERT_ID, temporary tables) belong to
// Writer: which of the two serves a statement is the caller's choice and is not guessed from its text.
//
// # Reading one's own writes
//
// With a [Session] in the context a read sees what was written with the same Session, whichever server it comes from. The
// position to wait for is asked for at the first read after a write, so writes cost nothing more. [Session.Token] takes it
// along to another process, in a cookie for instance.
package pool
