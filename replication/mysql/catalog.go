package mysql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// object is one thing that a schema holds, or the schema itself, with what it takes to create it again just so.
type object struct {
	kind         string // SCHEMA, SEQUENCE, TABLE, FUNCTION, PROCEDURE, PACKAGE, PACKAGE BODY, VIEW, TRIGGER, EVENT
	schema, name string
	create       string // in the client character set of its creation
	// The settings that it was created with; empty where they do not matter.
	sqlMode, client, collation, dbCollation, timeZone string
}

func (o object) String() string {
	if o.kind == "SCHEMA" {
		return "schema " + o.schema
	}
	return strings.ToLower(o.kind) + " " + o.schema + "." + o.name
}

// table is what there is to know of a table's data.
type table struct {
	schema, name string
	engine       string
	sequence     bool
	size         int64 // in bytes with indexes, an estimate
	versioned    bool  // WITH SYSTEM VERSIONING
	hidden       bool  // and the columns of its period are hidden
	columns      []column
	checksum     string // before the snapshot; for tables without transactions only
}

func (t *table) String() string { return t.schema + "." + t.name }
func (t *table) ident() string  { return name(t.schema, t.name) }
func (t *table) unsafe() bool {
	return !slices.Contains([]string{"INNODB", "ROCKSDB"}, strings.ToUpper(t.engine))
}
func (t *table) elsewhere() bool {
	return slices.Contains([]string{"MRG_MYISAM", "BLACKHOLE"}, strings.ToUpper(t.engine))
}
func (t *table) unreadable() bool { return !slices.Contains(enginesRead, strings.ToUpper(t.engine)) }

// enginesRead are the engines whose tables can be copied; those of MRG_MYISAM and BLACKHOLE without rows, since they have
// none of their own.
var enginesRead = []string{"INNODB", "ROCKSDB", "MYISAM", "ARIA", "MEMORY", "CSV", "ARCHIVE", "MRG_MYISAM", "BLACKHOLE"}

// column is a column that is copied.
type column struct {
	name string
	kind string // DATA_TYPE
}

// catalog is everything that a server has but rows.
type catalog struct {
	objects  []object // in the order in which they can be created, but for views
	tables   []*table
	accounts []userAccount
	schemas  map[string]string // collation by schema
	rows     int64             // an estimate
}

// readCatalog reads all definitions and, but for an engine's own, the accounts. The session must have no schema in use, so
// that views name theirs.
func readCatalog(ctx context.Context, t *session, but Config) (*catalog, error) {
	c := &catalog{schemas: map[string]string{}}
	where := " NOT IN " + systemSchemas + " AND %s <> " + quote(marker)
	list := func(query, schemaColumn string) ([]row, error) {
		return t.rows(ctx, strings.ReplaceAll(query, "{users}", schemaColumn+fmt.Sprintf(where, schemaColumn)))
	}
	schemas, err := list("SELECT schema_name AS s, default_collation_name AS c FROM information_schema.schemata "+
		"WHERE {users} ORDER BY schema_name", "schema_name")
	if err != nil {
		return nil, err
	}
	for _, r := range schemas {
		c.schemas[r["s"]] = r["c"]
		if err := c.add(ctx, t, "SCHEMA", r["s"], ""); err != nil {
			return nil, err
		}
	}
	tables, err := list("SELECT table_schema AS s, table_name AS n, table_type AS kind, IFNULL(engine,'') AS engine, "+
		"IFNULL(table_rows,0) AS row_count, IFNULL(data_length,0)+IFNULL(index_length,0) AS size "+
		"FROM information_schema.tables WHERE {users} "+
		"ORDER BY table_schema, table_name", "table_schema")
	if err != nil {
		return nil, err
	}
	columns, err := list("SELECT table_schema AS s, table_name AS n, column_name AS c, data_type AS kind, "+
		"IFNULL(generation_expression,'') AS expr, is_generated AS gen FROM information_schema.columns WHERE {users} "+
		"ORDER BY table_schema, table_name, ordinal_position", "table_schema")
	if err != nil {
		return nil, err
	}
	byTable := map[string][]row{}
	for _, r := range columns {
		key := name(r["s"], r["n"])
		byTable[key] = append(byTable[key], r)
	}
	var views []row
	for _, kind := range []string{"SEQUENCE", "TABLE"} { // columns may take their default from a sequence
		for _, r := range tables {
			switch {
			case r["kind"] == "VIEW":
				if kind == "TABLE" {
					views = append(views, r)
				}
				continue
			case r["kind"] == "SYSTEM VIEW" || (r["kind"] == "SEQUENCE") != (kind == "SEQUENCE"):
				continue
			}
			if err := c.add(ctx, t, kind, r["s"], r["n"]); err != nil {
				return nil, err
			}
			table := &table{schema: r["s"], name: r["n"], engine: r["engine"], sequence: kind == "SEQUENCE", size: number(r["size"]),
				versioned: r["kind"] == "SYSTEM VERSIONED"}
			table.hidden = table.versioned
			for _, col := range byTable[table.ident()] {
				table.hidden = table.hidden && col["expr"] != "ROW START"
				if col["gen"] != "ALWAYS" || col["expr"] == "ROW START" || col["expr"] == "ROW END" {
					table.columns = append(table.columns, column{col["c"], strings.ToLower(col["kind"])})
				}
			}
			c.tables = append(c.tables, table)
			c.rows += number(r["row_count"])
		}
	}
	routines, err := list("SELECT routine_schema AS s, routine_name AS n, routine_type AS kind FROM information_schema.routines "+
		"WHERE {users} ORDER BY routine_schema, routine_type, routine_name", "routine_schema")
	if err != nil {
		return nil, err
	}
	for _, r := range routines {
		if err := c.add(ctx, t, r["kind"], r["s"], r["n"]); err != nil {
			return nil, err
		}
	}
	for _, r := range views {
		if err := c.add(ctx, t, "VIEW", r["s"], r["n"]); err != nil {
			return nil, err
		}
	}
	triggers, err := list("SELECT trigger_schema AS s, trigger_name AS n FROM information_schema.triggers WHERE {users} "+
		"ORDER BY trigger_schema, event_object_table, event_manipulation, action_timing, action_order", "trigger_schema")
	if err != nil {
		return nil, err
	}
	for _, r := range triggers {
		if err := c.add(ctx, t, "TRIGGER", r["s"], r["n"]); err != nil {
			return nil, err
		}
	}
	events, err := list("SELECT event_schema AS s, event_name AS n FROM information_schema.events WHERE {users} "+
		"ORDER BY event_schema, event_name", "event_schema")
	if err != nil {
		return nil, err
	}
	for _, r := range events {
		if err := c.add(ctx, t, "EVENT", r["s"], r["n"]); err != nil {
			return nil, err
		}
	}
	c.accounts, err = readAccounts(ctx, t, but)
	return c, err
}

// The column of SHOW CREATE that has the statement.
var createColumn = map[string]string{"SCHEMA": "Create Database", "SEQUENCE": "Create Table", "TABLE": "Create Table",
	"VIEW": "Create View", "FUNCTION": "Create Function", "PROCEDURE": "Create Procedure", "PACKAGE": "Create Package",
	"PACKAGE BODY": "Create Package Body", "TRIGGER": "SQL Original Statement", "EVENT": "Create Event"}

// add reads one definition.
func (c *catalog) add(ctx context.Context, t *session, kind, schema, n string) error {
	o := object{kind: kind, schema: schema, name: n}
	what := name(schema, n)
	if kind == "SCHEMA" {
		what = name(schema)
	}
	// The text of what has a client character set of its own is kept in that, whatever it is.
	charset := "binary"
	if kind == "SCHEMA" || kind == "SEQUENCE" || kind == "TABLE" {
		charset = "utf8mb4"
	}
	if err := t.exec(ctx, "SET character_set_results = "+charset); err != nil {
		return err
	}
	rows, err := t.rows(ctx, "SHOW CREATE "+kind+" "+what)
	if restore := t.exec(ctx, "SET character_set_results = utf8mb4"); err == nil {
		err = restore
	}
	if isServer(err, errNoSuchTable, errUnknownView, errNoSuchRoutine) {
		return fmt.Errorf("%s: %w", o, errChanged)
	}
	if err != nil {
		return fmt.Errorf("reading the definition of %s: %w", o, err)
	}
	r := rows[0]
	o.create = r[createColumn[kind]]
	o.sqlMode, o.timeZone, o.dbCollation = r["sql_mode"], r["time_zone"], r["Database Collation"]
	o.client, o.collation = r["character_set_client"], r["collation_connection"]
	if o.create == "" {
		return fmt.Errorf("reading the definition of %s: the server does not show it: has it been dropped, or does the account lack "+
			"a privilege?", o)
	}
	if kind == "EVENT" {
		if o.create, err = disableEvent(o); err != nil {
			return err
		}
	}
	c.objects = append(c.objects, o)
	return nil
}

var eventStatus = regexp.MustCompile(`( ON COMPLETION (?:NOT )?PRESERVE) (?:ENABLE|DISABLE ON SLAVE|DISABLE)`)

// disableEvent gives the statement that creates the event as a replica has it, so that it does not run there.
func disableEvent(o object) (string, error) {
	head := strings.Index(o.create, "EVENT "+name(o.name)+" ON SCHEDULE ")
	if head >= 0 {
		if at := eventStatus.FindStringSubmatchIndex(o.create[head:]); at != nil {
			return o.create[:head+at[3]] + " DISABLE ON SLAVE" + o.create[head+at[1]:], nil
		}
	}
	return "", fmt.Errorf("%s: its definition has no status where the server writes it", o)
}

// check refuses tables that cannot be copied.
func (c *catalog) check() error {
	var bad []string
	for _, t := range c.tables {
		if t.unreadable() {
			bad = append(bad, fmt.Sprintf("%s (%s)", t, t.engine))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("tables of these engines cannot be copied over SQL: %s: drop or convert them", strings.Join(bad, ", "))
	}
	return nil
}

var autoIncrement = regexp.MustCompile(` AUTO_INCREMENT=\d+`)

// differs names the first difference between two catalogs, but for what rows change.
func (c *catalog) differs(d *catalog) string {
	key := func(o object) string { return o.String() }
	index := map[string]object{}
	for _, o := range d.objects {
		index[key(o)] = o
	}
	for _, o := range c.objects {
		p, ok := index[key(o)]
		if !ok {
			return o.String() + " is missing"
		}
		delete(index, key(o))
		if o.kind == "TABLE" {
			o.create, p.create = autoIncrement.ReplaceAllString(o.create, ""), autoIncrement.ReplaceAllString(p.create, "")
		}
		if o != p {
			return o.String() + " has another definition"
		}
	}
	for k := range index {
		return k + " is new"
	}
	return differAccounts(c.accounts, d.accounts)
}
