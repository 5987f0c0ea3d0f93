package mysql

import (
	"context"
	"fmt"
	"strconv"
)

// allRows is what a query needs that is to see the rows of the past too.
func (t *table) allRows() string {
	if t.versioned {
		return " FOR SYSTEM_TIME ALL"
	}
	return ""
}

// compare fails unless the target's table is the snapshot's.
func (l lane) compare(ctx context.Context, t *table, read int64) error {
	type sums struct {
		checksum string
		err      error
	}
	there := make(chan sums, 1)
	go func() {
		checksum, err := l.checksumSource(ctx, t)
		there <- sums{checksum, err}
	}()
	here, err := checksum(ctx, l.to, t)
	source := <-there
	if err != nil {
		return err
	}
	if source.err != nil {
		return source.err
	}
	return l.compareWith(ctx, t, here, read, source.checksum)
}

// checksumSource gives the checksum of the snapshot's table, and fails if that is no snapshot.
func (l lane) checksumSource(ctx context.Context, t *table) (string, error) {
	sum, err := checksum(ctx, l.from, t)
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
func (l lane) compareWith(ctx context.Context, t *table, here string, rows int64, source string) error {
	found, err := l.to.rows(ctx, "SELECT COUNT(*) AS n FROM "+t.ident()+t.allRows())
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
