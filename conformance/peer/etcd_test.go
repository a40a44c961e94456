package peer

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// The etcd that is tested is the one that Quire embeds.
func TestEtcdVersion(t *testing.T) {
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)\b` + regexp.QuoteMeta(etcdPackage) + ` (v\S+)`)
	var versions []string
	for _, dir := range []string{filepath.Dir(root), filepath.Join(root, "etcd")} {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		m := line.FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s: no version of %s in go.mod", dir, etcdPackage)
		}
		versions = append(versions, string(m[1]))
	}
	if versions[0] != versions[1] {
		t.Errorf("Quire embeds etcd %s, the module in etcd has %s: go get -C conformance/etcd -tool %s@%s", versions[0], versions[1], etcdPackage, versions[0])
	}
}
