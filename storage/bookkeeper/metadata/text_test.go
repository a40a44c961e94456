package metadata_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/quirelog/quire/storage/bookkeeper/metadata"
)

func TestParseCookie(t *testing.T) {
	const instance = "9ab2ec33-13d2-46d9-ae45-3f0b1ee61f6e"
	want := metadata.Cookie{BookieHost: "127.0.0.1:31811", InstanceID: instance}
	for name, text := range map[string]string{
		"a live bookie's":    "5\nbookieHost: \"127.0.0.1:31811\"\njournalDir: \"/d/j\"\nledgerDirs: \"1\\t/d/l\"\ninstanceId: \"" + instance + "\"\nindexDirs: \"1\\t/d/l\"\n",
		"layout 4":           "4\nbookieHost: \"127.0.0.1:31811\"\njournalDir: \"it\\'s \\303\\274ber\\\\all\\\"\"\ninstanceId: \"" + instance + "\"\n",
		"on one line":        "5\nbookieHost: \"127.0.0.1:31811\" instanceId: '" + instance + "' later: 7",
		"commas, no newline": "5\r\nbookieHost:\"127.0.0.1:31811\",instanceId:\"" + instance + "\";",
	} {
		if got, err := metadata.ParseCookie("b", []byte(text)); err != nil || got != want {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if got, err := metadata.ParseCookie("b", []byte("3\nhost:1\n/j\n/l\n")); err != nil || got != (metadata.Cookie{BookieHost: "host:1"}) {
		t.Errorf("layout 3: %+v, %v", got, err)
	}
	for name, text := range map[string]string{
		"nothing":            "",
		"no layout version":  "bookieHost: \"a\"\n",
		"layout 2":           "2\nhost:1\n",
		"no bookie":          "5\njournalDir: \"/d/j\"\n",
		"string cut short":   "5\nbookieHost: \"127",
		"string over lines":  "5\nbookieHost: \"a\nb\"\n",
		"no value":           "5\nbookieHost: \"a\"\nx:",
		"no name":            "5\n: \"a\"",
		"a message":          "5\nbookieHost: \"a\"\nx: { y: 1 }",
		"an unknown escape":  "5\nbookieHost: \"\\z\"",
		"a field, no colon":  "5\nbookieHost \"a\"",
		"escape at the end":  "5\nbookieHost: \"\\",
		"ends after a colon": "5\nbookieHost:",
	} {
		if got, err := metadata.ParseCookie("b", []byte(text)); !errors.Is(err, metadata.ErrCorrupt) {
			t.Errorf("%s: %+v, %v, want ErrCorrupt", name, got, err)
		}
	}
}

func TestMark(t *testing.T) {
	const live = "replica: \"127.0.0.1:31813\"\nctime: 1795317495332\n"
	want := metadata.Mark{Ledger: 2, Missing: []metadata.BookieID{"127.0.0.1:31813"}, CreatedMS: 1795317495332}
	m, err := metadata.ParseMark(2, []byte(live))
	if err != nil || !reflect.DeepEqual(m, want) {
		t.Errorf("ParseMark = %+v, %v", m, err)
	}
	if got := string(metadata.AppendMark(nil, m)); got != live {
		t.Errorf("AppendMark = %q, want %q", got, live)
	}
	if m.Add([]metadata.BookieID{"127.0.0.1:31813"}) {
		t.Error("a bookie was new twice")
	}
	if !m.Add([]metadata.BookieID{"127.0.0.1:31813", "b2", "b2"}) || len(m.Missing) != 2 {
		t.Errorf("after Add: %v", m.Missing)
	}
	if m, err := metadata.ParseMark(2, nil); err != nil || m.CreatedMS != 0 || m.Missing != nil {
		t.Errorf("an empty mark: %+v, %v", m, err)
	}
	if m, err := metadata.ParseMark(2, []byte("ctime: soon")); !errors.Is(err, metadata.ErrCorrupt) {
		t.Errorf("a mark of soon: %+v, %v", m, err)
	}
}

// No text makes them panic or hang, and a mark that is read is written the same way.
func FuzzText(f *testing.F) {
	f.Add("5\nbookieHost: \"127.0.0.1:31811\"\nledgerDirs: \"1\\t/d\\303\\274\"\n")
	f.Add("replica: \"a\"\nreplica: 'b'\nctime: 12\n")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := metadata.ParseCookie("b", []byte(text)); err != nil && !errors.Is(err, metadata.ErrCorrupt) {
			t.Fatal(err)
		}
		m, err := metadata.ParseMark(1, []byte(text))
		if err != nil {
			return
		}
		for _, id := range m.Missing {
			if !id.Valid() {
				return // it would be quoted as Go does
			}
		}
		again, err := metadata.ParseMark(1, metadata.AppendMark(nil, m))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%+v, %v after %+v", again, err, m)
		}
	})
}
