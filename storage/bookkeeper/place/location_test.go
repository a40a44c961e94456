package place

import (
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func TestTopology(t *testing.T) {
	topology, err := ParseTopology(map[string]string{
		"127.0.0.1:3181": "/east/r1", "b2": "r2", "10.0.0.9": "west/r9", "b3": "west/r3/blade7",
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id, addr string
		want     Location
	}{
		{"127.0.0.1:3181", "127.0.0.1:3181", Location{"east", "r1", "127.0.0.1"}},
		{"b2", "10.0.0.9:1", Location{"", "r2", "10.0.0.9"}}, // the id goes before the host
		{"b3", "10.0.0.9:1", Location{"west", "r3", "blade7"}},
		{"b4", "10.0.0.9:1", Location{"west", "r9", "10.0.0.9"}},
		{"b5", "10.0.0.8:1", Location{"", "", "10.0.0.8"}},
		{"b6", "", Location{}},
	} {
		if got := topology.Of(metadata.BookieID(c.id), c.addr); got != c.want {
			t.Errorf("%s at %s: %+v, want %+v", c.id, c.addr, got, c.want)
		}
	}
	for _, bad := range []string{"", "/", "a//b", "a/b/c/d", "a/ /c", "a/"} {
		if l, err := ParseTopology(map[string]string{"b": bad}); err == nil {
			t.Errorf("%q is %+v", bad, l)
		}
	}
}
