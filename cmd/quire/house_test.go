package main

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/quirelog/quire"

// root is the repository, seen from this package's folder, where tests run.
const root = "../.."

// imports lists which packages of ours a package may import. It is the order
// protocol < storage < offsets, coordinator < proxy < cmd, package by package.
// A package that is not listed is an error: a folder is a cost, and somebody
// decides what it may know.
var imports = map[string][]string{
	"protocol/buffer": {},
	"protocol/batch":  {"protocol/buffer"},
	"protocol":        {"protocol/batch", "protocol/buffer"},

	"storage/planted":           {},
	"storage/vfs":               {},
	"storage/ledger":            {},
	"storage/ledger/ledgertest": {"storage/ledger"},
	"storage/embedded":          {"storage/ledger", "storage/vfs", "protocol/buffer"},
	"storage/meta":              {},
	"storage/meta/metatest":     {"storage/meta"},
	"storage/meta/mem":          {"storage/meta"},
	"storage/meta/etcd":         {"storage/meta"},
	"storage":                   {"storage/ledger", "storage/meta", "storage/planted", "protocol/batch", "protocol/buffer"},

	"storage/bookkeeper/wire":                  {"storage/bookkeeper/metadata"},
	"storage/bookkeeper/metadata":              {},
	"storage/bookkeeper/metadata/metadatatest": {"storage/bookkeeper/metadata"},
	"storage/bookkeeper/metadata/mem":          {"storage/bookkeeper/metadata"},
	"storage/bookkeeper/metadata/etcd":         {"storage/bookkeeper/metadata"},
	"storage/bookkeeper/metadata/zookeeper":    {"storage/bookkeeper/metadata"},
	"storage/bookkeeper/quorum":                {"storage/bookkeeper/metadata", "storage/planted"},
	"storage/bookkeeper/place":                 {"storage/bookkeeper/metadata"},
	"storage/bookkeeper/bookie":                {"storage/bookkeeper/wire", "storage/bookkeeper/metadata", "protocol/buffer"},
	"storage/bookkeeper/bookietest":            {"storage/bookkeeper/wire", "storage/bookkeeper/metadata"},
	"storage/bookkeeper": {
		"storage/bookkeeper/wire", "storage/bookkeeper/metadata", "storage/bookkeeper/quorum", "storage/bookkeeper/place",
		"storage/bookkeeper/bookie", "storage/ledger", "protocol/buffer",
	},

	"offsets": {"storage/meta", "storage/planted"},

	"coordinator/group": {},
	"coordinator":       {"coordinator/group", "offsets", "storage", "storage/meta", "storage/planted", "protocol/batch"},

	"proxy/loop":    {"protocol/buffer"},
	"proxy/forward": {"proxy/loop", "storage/planted", "protocol", "protocol/buffer"},
	"proxy":         {"proxy/loop", "proxy/forward", "protocol", "protocol/buffer"},
	"proxy/api":     {"proxy", "proxy/forward", "coordinator", "coordinator/group", "offsets", "storage", "storage/ledger", "storage/meta", "storage/planted", "protocol", "protocol/batch", "protocol/buffer"},

	"cmd/quire": {"proxy/api", "proxy", "proxy/forward", "coordinator", "storage", "storage/bookkeeper", "storage/bookkeeper/metadata", "storage/bookkeeper/metadata/etcd", "storage/bookkeeper/metadata/zookeeper", "storage/embedded", "storage/ledger", "storage/meta", "storage/meta/etcd", "storage/vfs", "protocol/buffer"},
}

// testImports lists what tests may import beside that: the fakes and suites of
// the contracts that the package builds on.
var testImports = map[string][]string{
	"protocol":                              {},
	"storage/embedded":                      {"storage/ledger/ledgertest"},
	"storage/ledger/ledgertest":             {"storage/embedded", "storage/vfs"}, // faults planted under a real tier
	"storage/meta/mem":                      {"storage/meta/metatest"},
	"storage/meta/etcd":                     {"storage/meta/metatest"},
	"storage":                               {"storage/meta/mem", "storage/embedded", "storage/vfs", "storage/bookkeeper", "storage/bookkeeper/bookietest", "storage/bookkeeper/metadata", "storage/bookkeeper/metadata/mem"},
	"storage/bookkeeper/metadata/mem":       {"storage/bookkeeper/metadata/metadatatest"},
	"storage/bookkeeper/metadata/etcd":      {"storage/bookkeeper/metadata/metadatatest"},
	"storage/bookkeeper/metadata/zookeeper": {"storage/bookkeeper/metadata/metadatatest"},
	"storage/bookkeeper/bookie":             {"storage/bookkeeper/bookietest"},
	"storage/bookkeeper":                    {"storage/ledger/ledgertest", "storage/bookkeeper/bookietest", "storage/bookkeeper/metadata/mem", "storage/bookkeeper/metadata/etcd"},
	"offsets":                               {"storage/meta/mem", "storage/meta/etcd"},
	"coordinator":                           {"storage/meta/mem", "storage/meta/etcd"},
	"proxy/api":                             {"storage/meta/mem", "storage/embedded", "storage/vfs"},
	"cmd/quire":                             {"storage/bookkeeper/bookietest"},
}

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	eachGoFile(t, func(file string) {
		pkg := path.Dir(file)
		allowed, listed := imports[pkg]
		if !listed {
			if !seen[pkg] {
				t.Errorf("%s: the package is not in the table of imports", pkg)
			}
			seen[pkg] = true
			return
		}
		seen[pkg] = true
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			allowed = append(slices.Clone(allowed), testImports[pkg]...)
			allowed = append(allowed, pkg) // package foo_test
		}
		for _, spec := range f.Imports {
			name, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), modulePath+"/")
			if ours && !slices.Contains(allowed, name) {
				t.Errorf("%s may not import %s", file, name)
			}
		}
	})
	for pkg := range imports {
		if !seen[pkg] {
			t.Errorf("the table of imports lists %s, which does not exist", pkg)
		}
	}
	for pkg := range testImports {
		if imports[pkg] == nil {
			t.Errorf("the table of tests' imports lists %s, which the table of imports does not", pkg)
		}
	}
}

// TestImportsHaveNoCycle keeps the table itself honest, folders included: a
// folder may be imported only by folders right of it.
func TestImportsHaveNoCycle(t *testing.T) {
	order := []string{"protocol", "storage", "offsets", "coordinator", "proxy", "cmd"}
	rank := func(pkg string) int {
		top, _, _ := strings.Cut(pkg, "/")
		return slices.Index(order, top)
	}
	for pkg, allowed := range imports {
		for _, a := range allowed {
			if rank(a) > rank(pkg) {
				t.Errorf("%s may import %s, which is above it", pkg, a)
			}
		}
	}
}

func TestPackagesHaveComments(t *testing.T) {
	documented := map[string]bool{}
	eachGoFile(t, func(file string) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		pkg := path.Dir(file)
		documented[pkg] = documented[pkg] || f.Doc != nil
	})
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}

// eachGoFile calls f with every Go file of this module, by its slash path.
// conformance is a module of its own.
func eachGoFile(t *testing.T, f func(file string)) {
	t.Helper()
	eachFile(t, func(file string) {
		if strings.HasSuffix(file, ".go") && !strings.HasPrefix(file, "conformance/") {
			f(file)
		}
	})
}

// eachFile calls f with every file of the repository that .gitignore does not
// name and no dot folder but .ci holds.
func eachFile(t *testing.T, f func(file string)) {
	t.Helper()
	ignored := ignorePatterns(t)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || rel == "." {
			return err
		}
		rel = filepath.ToSlash(rel)
		switch {
		case rel == ".git", ignored(rel, d.IsDir()), d.IsDir() && (d.Name() == "testdata" || d.Name() == ".work"):
			// Where several branches are checked out .git is a file, which names a folder.
			if d.IsDir() {
				return fs.SkipDir
			}
		case d.Type().IsRegular():
			f(rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// ignorePatterns reads the forms of .gitignore that ours uses: /path/ and *.suffix.
func ignorePatterns(t *testing.T) func(rel string, dir bool) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".gitignore"))
	if err != nil {
		t.Fatal(err)
	}
	patterns := strings.Fields(string(text))
	return func(rel string, dir bool) bool {
		for _, p := range patterns {
			switch {
			case strings.HasPrefix(p, "/"):
				if dir && rel == strings.Trim(p, "/") {
					return true
				}
			default:
				if ok, _ := path.Match(p, path.Base(rel)); ok {
					return true
				}
			}
		}
		return false
	}
}

// TestTopLevel holds the eight folders. offsets has nothing in it before groups do.
func TestTopLevel(t *testing.T) {
	folders := []string{"cmd", "conformance", "coordinator", "deploy", "offsets", "protocol", "proxy", "storage"}
	files := []string{"CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "go.mod", "go.sum"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	ignored := ignorePatterns(t)
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || ignored(name, e.IsDir()) {
			continue
		}
		if allowed := map[bool][]string{true: folders, false: files}[e.IsDir()]; !slices.Contains(allowed, name) {
			t.Errorf("%s does not belong to the top level", name)
		}
	}
	for _, name := range append(files, ".ci/run", ".gitignore") {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Error(err)
		}
	}
}

// TestModule: "go install …@latest" refuses a module with replace directives.
func TestModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if regexp.MustCompile(`(?m)^\s*(replace|exclude)\b`).Match(text) {
		t.Error("go.mod has a replace or exclude directive")
	}
	if !regexp.MustCompile(`(?m)^module ` + regexp.QuoteMeta(modulePath) + `$`).Match(text) {
		t.Errorf("go.mod is not that of %s", modulePath)
	}
}

// Where packages come from is the business of each machine's Go and Maven
// settings, and where a checkout lies is nobody's else.
var (
	registryHost = regexp.MustCompile(`(proxy|sum)\.` + `golang\.org|repo1?\.` + `maven|registry\.` + `npmjs|pypi\.` + `org|python` + `hosted|deb\.` + `debian|(index|static)\.` + `crates`)
	machinePath  = regexp.MustCompile(`(^|[^[:alnum:]_.*-])/(home|root|Users|work|farm)` + `/[A-Za-z.]`)
)

func TestFilesNameNoMachine(t *testing.T) {
	for text, want := range map[string]bool{
		"see /ho" + "me/alice/quire": true, "x=/wo" + "rk/main": true, "https://pro" + "xy.golang.org": true,
		"conformance/.work/lib": false, "*/work/x": false, "/var/lib/quire": false,
	} {
		if got := registryHost.MatchString(text) || machinePath.MatchString(text); got != want {
			t.Errorf("%q: matches %v, want %v", text, got, want)
		}
	}
	const maxTextBytes = 2 << 20
	eachFile(t, func(file string) {
		info, err := os.Stat(filepath.Join(root, file))
		if err != nil || info.Size() > maxTextBytes || path.Base(file) == "go.sum" {
			return
		}
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, re := range []*regexp.Regexp{registryHost, machinePath} {
			if m := re.FindString(string(text)); m != "" {
				t.Errorf("%s names %q", file, m)
			}
		}
	})
}
