package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/token"

	"github.com/scalr-go/scalr/farm"
)

// change changes the lines of a document.
type change func(d *document, lines []string) ([]string, error)

// rewrite gives the document with changes, one after another, so that comments and the order of the lines stay. The result must say
// exactly what want says.
func (d *document) rewrite(file string, want farm.Spec, changes ...change) (*document, error) {
	next := d
	for _, c := range changes {
		lines, err := c(next, strings.SplitAfter(string(next.text), "\n"))
		if err != nil {
			return nil, err
		}
		if next, err = parseSpec(d.file, []byte(strings.Join(lines, ""))); err != nil {
			return nil, fmt.Errorf("%s: cannot be changed in its text, want each field of the farm on a line of its own: %w", d.file, err)
		}
	}
	next.file = file
	if !reflect.DeepEqual(next.spec, want) {
		return nil, fmt.Errorf("%s: cannot be changed in its text, want each field of the farm on a line of its own and without an anchor", d.file)
	}
	return next, nil
}

// edit gives the document with another text at a path.
func (d *document) edit(path, value string, want farm.Spec) (*document, error) {
	next, err := d.rewrite(d.file, want, replaceAt(path, quoted(value)))
	if t := d.at[path]; err != nil && t != nil {
		err = d.alone(path)
	}
	return next, err
}

func (d *document) alone(path string) error {
	return d.fault(d.at[path], "%s: cannot be changed alone, want it on one line and without an anchor", path)
}

// quoted is text as a value that is nothing else.
func quoted(text string) string {
	if token.IsNeedQuoted(text) {
		return strconv.Quote(text)
	}
	return text
}

// replaceAt puts a value in the place of the one at a path.
func replaceAt(path, value string) change {
	return func(d *document, lines []string) ([]string, error) {
		t := d.at[path]
		if t == nil {
			return nil, fmt.Errorf("%s: %s: is missing, want it written out to change it", d.file, path)
		}
		line := []rune(lines[t.Position.Line-1])
		before, after := line[:t.Position.Column-1], line[t.Position.Column-1:]
		rest, ok := strings.CutPrefix(string(after), strings.TrimSpace(t.Origin))
		if !ok {
			return nil, d.alone(path)
		}
		lines[t.Position.Line-1] = string(before) + value + rest
		return lines, nil
	}
}

var beginning = regexp.MustCompile(`^[ -]*`)

// addBehind adds a field in the line behind that of another one of the same thing.
func addBehind(path, field, value string) change {
	return func(d *document, lines []string) ([]string, error) {
		t := d.at[path]
		if t == nil {
			return nil, fmt.Errorf("%s: %s: is missing, want it written out to add %s beside it", d.file, path, field)
		}
		line := lines[t.Position.Line-1]
		indent := strings.ReplaceAll(beginning.FindString(line), "-", " ")
		if !strings.HasPrefix(line[len(indent):], path[strings.LastIndexByte(path, '.')+1:]) {
			return nil, d.fault(t, "%s: has no line of its own, want one to add %s below it", path, field)
		}
		if !strings.HasSuffix(line, "\n") {
			lines[t.Position.Line-1] += "\n"
		}
		at := t.Position.Line
		return append(lines[:at:at], append([]string{indent + field + ": " + value + "\n"}, lines[at:]...)...), nil
	}
}

// add adds a line at the end.
func add(line string) change {
	return func(_ *document, lines []string) ([]string, error) {
		if last := lines[len(lines)-1]; last != "" {
			lines[len(lines)-1] += "\n"
		}
		return append(lines, line+"\n"), nil
	}
}

// remove takes a field of the farm away, with all lines that belong to it.
func remove(field string) change {
	return func(_ *document, lines []string) (rest []string, err error) {
		within := false
		for _, line := range lines {
			if within = strings.HasPrefix(line, field+":") || within && (strings.TrimSpace(line) == "" || line[0] == ' '); !within {
				rest = append(rest, line)
			}
		}
		return append(rest, ""), nil
	}
}

// replace writes a file as a whole or not at all, with the mode that the old one has.
func replace(file string, text []byte) error {
	mode := os.FileMode(0o600)
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".deploytool-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
