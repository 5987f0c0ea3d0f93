package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// batchBytes is how large the statements are that insert rows; a single row may be larger.
const batchBytes = 1 << 20

// copyAll makes everything of the catalog on the target. Rows come before triggers, and grants last.
func (c *copying) copyAll(ctx context.Context, all *catalog) error {
	if err := c.createFirst(ctx, all); err != nil {
		return err
	}
	if err := c.copyTables(ctx, all); err != nil {
		return err
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
func (l lane) copyTable(ctx context.Context, t *table) error {
	if err := l.from.exec(ctx, "SAVEPOINT seed", "SET NAMES binary"); err != nil {
		return fmt.Errorf("on the source: %w", err)
	}
	read, err := l.insertRows(ctx, t, func(ctx context.Context, emit func(statement string, rows int64) bool) error {
		if err := l.readRows(ctx, t, emit); err != nil {
			return fmt.Errorf("on the source: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := l.compare(ctx, t, read); err != nil {
		return err
	}
	if err := l.from.exec(ctx, "SET NAMES utf8mb4", "ROLLBACK TO SAVEPOINT seed"); err != nil {
		return fmt.Errorf("on the source: %w", err)
	}
	return nil
}

// insertRows streams rows into the target's table: while one batch is written the next one is read.
func (l lane) insertRows(ctx context.Context, t *table,
	reads func(ctx context.Context, emit func(statement string, rows int64) bool) error) (read int64, err error) {
	if err := l.to.exec(ctx, "SET NAMES binary"); err != nil {
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
		err = l.to.exec(ctx, keepHistory)
	}
	for b := range batches {
		if err != nil {
			continue // the reader has been told
		}
		if err = l.to.exec(ctx, b.statement); err != nil {
			err = fmt.Errorf("inserting: %w", err)
			cancel()
			continue
		}
		read += b.rows
		l.copied(t, b.rows)
	}
	cancel()
	if readErr := <-result; err == nil {
		err = readErr
	}
	if err != nil {
		return read, err
	}
	return read, l.to.exec(ctx, "SET NAMES utf8mb4")
}

// keepHistory lets the rows of the past be inserted into a table with system versioning.
const keepHistory = "SET system_versioning_insert_history = ON"

// readRows reads the table and gives INSERT statements.
func (l lane) readRows(ctx context.Context, t *table, emit func(statement string, rows int64) bool) error {
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
	rows, err := l.from.conn.QueryContext(ctx, "SELECT "+strings.Join(selects, ",")+" FROM "+from)
	if err != nil {
		return l.from.s.engine.explain(ctx, err)
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
			return l.from.s.engine.explain(ctx, err)
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
		return l.from.s.engine.explain(ctx, err)
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
