package house_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/scalr-go/scalr"

type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Standard   bool
	Doc        string
	Name       string
	Module     *struct{ Path string }
}

// load lists the module's packages and all that they need, without tests.
func load(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Imports,Deps,Standard,Doc,Name,Module", module+"/...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	require.NoError(t, err)
	packages := map[string]pkg{}
	d := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		require.NoError(t, err)
		packages[p.ImportPath] = p
	}
}

// TestImportRules keeps the house in order: the interfaces need nothing, the farm needs the interfaces and no driver, and
// nothing needs the farm.
func TestImportRules(t *testing.T) {
	packages := load(t)
	local := func(path string) (string, bool) { return strings.CutPrefix(path, module+"/") }
	interfaces := []string{"provider", "dnsreg", "cronlock", "cache", "replication"}

	require.Empty(t, foreign(packages, module), "the root needs the standard library only")
	for _, name := range interfaces {
		p, ok := packages[module+"/"+name]
		require.True(t, ok, name)
		for _, i := range p.Imports {
			require.True(t, packages[i].Standard || i == module, "%s imports %s: it may import the standard library and scalr only", name, i)
		}
	}
	for _, i := range packages[module+"/farm"].Deps {
		name, ours := local(i)
		if i == module || packages[i].Standard {
			continue
		}
		require.True(t, ours, "farm depends on %s: it links no SDK, no database driver and no DNS library", i)
		require.True(t, slices.Contains(interfaces, name) || strings.HasPrefix(name, "farm/"), "farm depends on %s: it may import interface packages only", i)
	}
	for path, p := range packages {
		name, ours := local(path)
		if !ours {
			continue
		}
		top, _, nested := strings.Cut(name, "/")
		for _, i := range p.Imports {
			to, ours := local(i)
			if !ours {
				continue
			}
			toTop, _, toNested := strings.Cut(to, "/")
			if toTop == "farm" {
				require.Contains(t, []string{"farm", "examples", "internal"}, top, "%s imports %s: nobody imports the farm", name, to)
			}
			if toTop == "internal" || toTop == "examples" {
				require.Contains(t, []string{"internal", "examples"}, top, "%s imports %s", name, to)
			}
			if nested && toNested && slices.Contains(interfaces, top) {
				require.Equal(t, top, toTop, "%s imports %s: a driver imports its own interface and no other driver", name, to)
			}
		}
		require.NotEmpty(t, p.Doc, "%s has no package doc", name)
	}
}

// foreign gives what a package needs from outside the standard library and the module.
func foreign(packages map[string]pkg, path string) (list []string) {
	for _, i := range packages[path].Deps {
		if !packages[i].Standard && !strings.HasPrefix(i, module) {
			list = append(list, i)
		}
	}
	return list
}

// TestMemcloudLinksNoSDK counts what a program links that embeds the farm with the cloud in memory.
func TestMemcloudLinksNoSDK(t *testing.T) {
	packages := load(t)
	require.Empty(t, foreign(packages, module+"/provider/memcloud"))
	require.Empty(t, foreign(packages, module+"/farm"))
}
