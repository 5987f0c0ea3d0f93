package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// batchBytes is how large the statements are that insert rows; a single row may be larger.
const batchBytes = 1 << 20

// copyAll makes everything of the catalog on the target. Rows come before triggers, and grants last.
func (c *copying) copyAll(ctx context.Context, all *catalog) error {
	if err := c.createFirst(ctx, all); err != nil {
		return err
	}
	for _, t := range all.tables {
		if t.elsewhere() {
			continue
		}
		if err := c.copyTable(ctx, t); err != nil {
			return fmt.Errorf("table %s: %w", t, err)
		}
	}
	return c.createLast(ctx, all)
}

// late reports whether the object is made when the rows are there.
func (o object) late() bool { return o.kind == "VIEW" || o.kind == "TRIGGER" || o.kind == "EVENT" }

// createFirst makes what the rows need.
func (c *copying) createFirst(ctx context.Context, all *catalog) error {
	for _, o := range all.objects {
		if o.late() {
			continue
		}
		if err := c.create(ctx, o, all); err != nil {
			return fmt.Errorf("creating %s: %w", o, err)
		}
	}
	return nil
}

// createLast makes the rest.
func (c *copying) createLast(ctx context.Context, all *catalog) error {
	var views []object
	for _, o := range all.objects {
		if o.kind == "VIEW" {
			views = append(views, o)
		}
	}
	if err := c.createViews(ctx, views, all); err != nil {
		return err
	}
	for _, o := range all.objects {
		if o.late() && o.kind != "VIEW" {
			if err := c.create(ctx, o, all); err != nil {
				return fmt.Errorf("creating %s: %w", o, err)
			}
		}
	}
	return c.grantAccounts(ctx)
}

// create makes one object under the settings that it was made with.
func (c *copying) create(ctx context.Context, o object, all *catalog) (err error) {
	before, after := o.settings(all)
	if err = c.to.exec(ctx, before...); err == nil {
		err = c.to.exec(ctx, o.create)
	}
	for _, statement := range after {
		if restore := c.to.exec(ctx, statement); err == nil {
			err = restore
		}
	}
	return err
}

// settings gives what makes a session create the object as it was created, and what undoes that.
func (o object) settings(all *catalog) (before, after []string) {
	if o.kind == "SCHEMA" {
		return nil, nil
	}
	if o.kind != "VIEW" {
		before = append(before, "USE "+name(o.schema)) // a view's definition names its schemas
	}
	set := func(variable, value string) {
		if value != "" {
			before = append(before, "SET @keep_"+variable+" = @@"+variable, "SET "+variable+" = "+quote(value))
			after = append(after, "SET "+variable+" = @keep_"+variable)
		}
	}
	if now := all.schemas[o.schema]; o.dbCollation != "" && o.dbCollation != now {
		before = append(before, "ALTER DATABASE "+name(o.schema)+" COLLATE "+o.dbCollation)
		after = append(after, "ALTER DATABASE "+name(o.schema)+" COLLATE "+now)
	}
	set("time_zone", o.timeZone)
	if o.kind != "VIEW" && o.client != "" { // an empty sql_mode is one too
		before = append(before, "SET @keep_sql_mode = @@sql_mode", "SET sql_mode = "+quote(o.sqlMode))
		after = append(after, "SET sql_mode = @keep_sql_mode")
	}
	if o.client != "" {
		before = append(before, "SET character_set_client = "+o.client, "SET collation_connection = "+o.collation)
		after = append(after, "SET NAMES utf8mb4")
	}
	slices.Reverse(after)
	return before, after
}

// createViews makes views in an order that is found by trying, since views may use views.
func (c *copying) createViews(ctx context.Context, views []object, all *catalog) error {
	for len(views) > 0 {
		if err := c.grantEarly(ctx); err != nil {
			return err
		}
		var later []object
		var first error
		for _, v := range views {
			err := c.create(ctx, v, all)
			if isServer(err, errNoSuchTable, errUnknownView, errNoSuchRoutine, errViewInvalid) {
				later = append(later, v)
				if first == nil {
					first = fmt.Errorf("creating %s: %w: drop or repair it on the source", v, err)
				}
				continue
			}
			if err != nil {
				return fmt.Errorf("creating %s: %w", v, err)
			}
		}
		if len(later) == len(views) {
			return first
		}
		views = later
	}
	return nil
}

// copyTable copies the rows of one table and compares. The savepoint keeps the source's metadata locks as short as the copy
// of one table, so that definitions of others can be changed meanwhile.
func (c *copying) copyTable(ctx context.Context, t *table) error {
	if err := c.snap.exec(ctx, "SAVEPOINT seed", "SET NAMES binary"); err != nil {
		return fmt.Errorf("on the source: %w", err)
	}
	read, err := c.insertRows(ctx, t, func(ctx context.Context, emit func(statement string, rows int64) bool) error {
		if err := c.readRows(ctx, t, emit); err != nil {
			return fmt.Errorf("on the source: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.compare(ctx, t, read); err != nil {
		return err
	}
	if err := c.snap.exec(ctx, "SET NAMES utf8mb4", "ROLLBACK TO SAVEPOINT seed"); err != nil {
		return fmt.Errorf("on the source: %w", err)
	}
	return nil
}

// insertRows streams rows into the target's table: while one batch is written the next one is read.
func (c *copying) insertRows(ctx context.Context, t *table,
	reads func(ctx context.Context, emit func(statement string, rows int64) bool) error) (read int64, err error) {
	if err := c.to.exec(ctx, "SET NAMES binary"); err != nil {
		return 0, err
	}
	reading, cancel := context.WithCancel(ctx)
	type batch struct {
		statement string
		rows      int64
	}
	batches := make(chan batch, 2)
	result := make(chan error, 1)
	go func() {
		defer close(batches)
		result <- reads(reading, func(statement string, rows int64) bool {
			select {
			case batches <- batch{statement, rows}:
				return true
			case <-reading.Done():
				return false
			}
		})
	}()
	if t.versioned {
		err = c.to.exec(ctx, keepHistory)
	}
	for b := range batches {
		if err != nil {
			continue // the reader has been told
		}
		if err = c.to.exec(ctx, b.statement); err != nil {
			err = fmt.Errorf("inserting: %w", err)
			cancel()
			continue
		}
		read += b.rows
		c.done += b.rows
		c.report(t.String())
	}
	cancel()
	if readErr := <-result; err == nil {
		err = readErr
	}
	if err != nil {
		return read, err
	}
	return read, c.to.exec(ctx, "SET NAMES utf8mb4")
}

// keepHistory lets the rows of the past be inserted into a table with system versioning.
const keepHistory = "SET system_versioning_insert_history = ON"

// readRows reads the table and gives INSERT statements.
func (c *copying) readRows(ctx context.Context, t *table, emit func(statement string, rows int64) bool) error {
	columns := t.columns
	from := t.ident()
	if t.versioned {
		from += " FOR SYSTEM_TIME ALL"
	}
	if t.hidden {
		columns = append(slices.Clone(columns), column{"row_start", "timestamp"}, column{"row_end", "timestamp"})
	}
	var names, selects []string
	for _, col := range columns {
		names = append(names, name(col.name))
		selects = append(selects, col.selects())
	}
	rows, err := c.snap.conn.QueryContext(ctx, "SELECT "+strings.Join(selects, ",")+" FROM "+from)
	if err != nil {
		return c.snap.s.engine.explain(ctx, err)
	}
	defer rows.Close()
	head := "INSERT INTO " + t.ident() + " (" + strings.Join(names, ",") + ") VALUES "
	values := make([]sql.RawBytes, len(columns))
	targets := make([]any, len(columns))
	for i := range values {
		targets[i] = &values[i]
	}
	buf := append(make([]byte, 0, batchBytes+batchBytes/8), head...)
	var n int64
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return c.snap.s.engine.explain(ctx, err)
		}
		if n > 0 {
			buf = append(buf, ',')
		}
		buf = append(buf, '(')
		for i, v := range values {
			if i > 0 {
				buf = append(buf, ',')
			}
			buf = columns[i].appendLiteral(buf, v)
		}
		buf = append(buf, ')')
		if n++; len(buf) >= batchBytes {
			if !emit(string(buf), n) {
				return context.Cause(ctx)
			}
			buf, n = append(buf[:0], head...), 0
		}
	}
	if err := rows.Err(); err != nil {
		return c.snap.s.engine.explain(ctx, err)
	}
	if n > 0 && !emit(string(buf), n) {
		return context.Cause(ctx)
	}
	return nil
}

// selects gives the expression that reads the column without loss: FLOAT would be rounded to six digits, and of the members
// of ENUM and SET the number says more than the text.
func (col column) selects() string {
	switch col.kind {
	case "float":
		return "CAST(" + name(col.name) + " AS DOUBLE)"
	case "enum", "set":
		return "CAST(" + name(col.name) + " AS UNSIGNED)"
	}
	return name(col.name)
}

// appendLiteral writes a value as it came in a session with NAMES binary, so that the target stores the same bytes. What
// is no integer is a string, also FLOAT and DOUBLE: of a number -0 the sign would be lost.
func (col column) appendLiteral(buf, v []byte) []byte {
	if v == nil {
		return append(buf, "NULL"...)
	}
	switch col.kind {
	case "tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "enum", "set", "year":
		return append(buf, v...)
	case "uuid", "inet4", "inet6": // bytes would be taken for the type's inner form
		buf = append(buf, "_latin1'"...)
		buf = append(buf, v...)
		return append(buf, '\'')
	}
	buf = append(buf, '\'')
	for _, b := range v {
		switch b {
		case 0:
			buf = append(buf, '\\', '0')
		case '\'', '\\':
			buf = append(buf, '\\', b)
		default:
			buf = append(buf, b)
		}
	}
	return append(buf, '\'')
}

// allRows is what a query needs that is to see the rows of the past too.
func (t *table) allRows() string {
	if t.versioned {
		return " FOR SYSTEM_TIME ALL"
	}
	return ""
}

// compare fails unless the target's table is the snapshot's.
func (c *copying) compare(ctx context.Context, t *table, read int64) error {
	type sums struct {
		checksum string
		err      error
	}
	there := make(chan sums, 1)
	go func() {
		checksum, err := c.checksumSource(ctx, t)
		there <- sums{checksum, err}
	}()
	here, err := checksum(ctx, c.to, t)
	source := <-there
	if err != nil {
		return err
	}
	if source.err != nil {
		return source.err
	}
	return c.compareWith(ctx, t, here, read, source.checksum)
}

// checksumSource gives the checksum of the snapshot's table, and fails if that is no snapshot.
func (c *copying) checksumSource(ctx context.Context, t *table) (string, error) {
	sum, err := checksum(ctx, c.snap, t)
	if err != nil {
		return "", fmt.Errorf("on the source: %w", err)
	}
	if t.checksum != "" && t.checksum != sum {
		return "", fmt.Errorf("it has been written to during the copy, and its engine %s has no transactions: seed again when it is not, "+
			"or convert it to InnoDB", t.engine)
	}
	return sum, nil
}

// compareWith fails unless the target's table, with the checksum here, has the rows and the checksum of the source's.
func (c *copying) compareWith(ctx context.Context, t *table, here string, rows int64, source string) error {
	found, err := c.to.rows(ctx, "SELECT COUNT(*) AS n FROM "+t.ident()+t.allRows())
	if err != nil {
		return err
	}
	if n := number(found[0]["n"]); n != rows {
		return fmt.Errorf("the copy has %d rows, the source %d", n, rows)
	}
	if here != source {
		return fmt.Errorf("the copy has the checksum %s, the source %s", here, source)
	}
	return nil
}

func checksum(ctx context.Context, t *session, of *table) (string, error) {
	rows, err := t.rows(ctx, "CHECKSUM TABLE "+of.ident()+" EXTENDED")
	if err != nil {
		return "", err
	}
	sum, ok := rows[0]["Checksum"]
	if _, err := strconv.ParseUint(sum, 10, 64); !ok || err != nil {
		return "", fmt.Errorf("the server gives no checksum of it: is the table broken?")
	}
	return sum, nil
}

// checksumUnsafe notes what tables without transactions hold before the snapshot: if they hold the same after the copy,
// they held it throughout.
func (all *catalog) checksumUnsafe(ctx context.Context, t *session) (err error) {
	for _, table := range all.tables {
		if table.unsafe() && !table.elsewhere() {
			if table.checksum, err = checksum(ctx, t, table); err != nil {
				return fmt.Errorf("table %s: %w", table, err)
			}
		}
	}
	return nil
}

// verify compares the definitions of the source with what they were, and the target's with them.
func (c *copying) verify(ctx context.Context, before *catalog) error {
	c.report("comparing")
	if err := c.unchanged(ctx, before, c.target.engine.config); err != nil {
		return err
	}
	return c.equalDefinitions(ctx, before)
}

// unchanged fails if the definitions of the source are not what they were.
func (c *copying) unchanged(ctx context.Context, before *catalog, but Config) error {
	after, err := readCatalog(ctx, c.defs, but)
	if err != nil {
		return err
	}
	if diff := before.differs(after); diff != "" {
		return fmt.Errorf("%w: %s", errChanged, diff)
	}
	return nil
}

// equalDefinitions fails unless the target's definitions are the source's. They are compared only if both run the same
// version, since versions write the same definition in different ways.
func (c *copying) equalDefinitions(ctx context.Context, before *catalog) error {
	if c.sourceVersion != c.targetVersion {
		return nil
	}
	if err := c.to.exec(ctx, "USE information_schema"); err != nil {
		return err
	}
	here, err := readCatalog(ctx, c.to, c.target.engine.config)
	if err != nil {
		return err
	}
	if c.apart {
		here.accounts = before.accounts // they are meant to differ
	}
	if diff := before.differs(here); diff != "" {
		return fmt.Errorf("the copy is not equal: %s", diff)
	}
	return nil
}
