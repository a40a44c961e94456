package api

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
)

func TestApiVersionsIsTheTable(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for v := int16(0); v <= 5; v++ {
		q := kmsg.NewPtrApiVersionsRequest()
		q.Version, q.NodeID = v, -1
		q.ClientSoftwareName, q.ClientSoftwareVersion = "test-client", "1.2.3-rc.1"
		resp := do[*kmsg.ApiVersionsResponse](c, q)
		wantCode(t, "ApiVersions", resp.ErrorCode, protocol.None)
		if len(resp.ApiKeys) != len(table) {
			t.Fatalf("v%d: %d keys, the table has %d", v, len(resp.ApiKeys), len(table))
		}
		for i, k := range resp.ApiKeys {
			if k.ApiKey != table[i].key || k.MinVersion != table[i].min || k.MaxVersion != table[i].max {
				t.Errorf("v%d: row %d is %+v", v, i, k)
			}
		}
		// A range of levels that begins at 0 is not told before v4 (KAFKA-17011),
		// and no feature before v3.
		if supported := resp.SupportedFeatures; (len(supported) == 1) != (v >= 4) ||
			v >= 4 && (supported[0].Name != "group.version" || supported[0].MinVersion != 0 || supported[0].MaxVersion != 1) {
			t.Errorf("v%d: supported features are %+v", v, supported)
		}
		if finalized := resp.FinalizedFeatures; (len(finalized) == 1) != (v >= 3) ||
			v >= 3 && (finalized[0].Name != "group.version" || finalized[0].MinVersionLevel != 1 || finalized[0].MaxVersionLevel != 1 || resp.FinalizedFeaturesEpoch < 0) {
			t.Errorf("v%d: finalized features are %+v", v, finalized)
		}
	}
}

// TestApiVersionsFromTheFuture: a version that is not known is answered as v0
// with error 35 and the range of ApiVersions, and the connection goes on.
func TestApiVersionsFromTheFuture(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	for _, v := range []int16{6, 100, 32767} {
		// The layout of a version from the future is not known; what matters is
		// key, version and correlation id.
		frame := []byte{0, 0, 0, 0, 0, 18, byte(v >> 8), byte(v), 0, 0, 0, 7, 0xff, 0xff, 0, 1, 2, 3}
		frame[3] = byte(len(frame) - 4)
		_, err := c.conn.Write(frame)
		check(t, err)
		b, err := c.frame()
		check(t, err)
		resp := kmsg.NewPtrApiVersionsResponse()
		resp.Version = 0
		check(t, resp.ReadFrom(b[4:]))
		wantCode(t, "ApiVersions", resp.ErrorCode, protocol.UnsupportedVersion)
		if len(resp.ApiKeys) != 1 || resp.ApiKeys[0].ApiKey != 18 || resp.ApiKeys[0].MaxVersion != 5 {
			t.Errorf("v%d: the keys are %+v", v, resp.ApiKeys)
		}
	}
	q := kmsg.NewPtrApiVersionsRequest()
	wantCode(t, "ApiVersions after all that", do[*kmsg.ApiVersionsResponse](c, q).ErrorCode, protocol.None)
}

func TestApiVersionsChecksTheClient(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	str := kmsg.StringPtr
	for _, tc := range []struct {
		what          string
		version       int16
		name, release string
		cluster       *string
		node          int32
		want          protocol.Code
	}{
		{"plain", 3, "librdkafka", "2.3.0", nil, -1, protocol.None},
		{"one character", 3, "a", "1", nil, -1, protocol.None},
		{"no name", 3, "", "1", nil, -1, protocol.InvalidRequest},
		{"no version", 4, "a", "", nil, -1, protocol.InvalidRequest},
		{"space", 3, "my client", "1", nil, -1, protocol.InvalidRequest},
		{"ends in a dash", 3, "client-", "1", nil, -1, protocol.InvalidRequest},
		{"control character", 3, "client\x00", "1", nil, -1, protocol.InvalidRequest},
		{"not looked at before v3", 2, "", "", nil, -1, protocol.None},
		{"right cluster and node", 5, "a", "1", str(s.coord.ClusterID()), 1, protocol.None},
		{"wrong cluster", 5, "a", "1", str("other"), 1, protocol.RebootstrapRequired},
		{"wrong node", 5, "a", "1", str(s.coord.ClusterID()), 2, protocol.RebootstrapRequired},
		{"cluster without node", 5, "a", "1", str("other"), -1, protocol.InvalidRequest},
		{"node without cluster", 5, "a", "1", nil, 1, protocol.InvalidRequest},
	} {
		q := kmsg.NewPtrApiVersionsRequest()
		q.Version, q.ClientSoftwareName, q.ClientSoftwareVersion = tc.version, tc.name, tc.release
		q.ClusterID, q.NodeID = tc.cluster, tc.node
		resp := do[*kmsg.ApiVersionsResponse](c, q)
		wantCode(t, tc.what, resp.ErrorCode, tc.want)
	}
}

// TestFeaturesOfLibrdkafka: librdkafka turns a feature on when the broker serves certain
// versions, which for old releases are exact ones (rdkafka_feature.c).
func TestFeaturesOfLibrdkafka(t *testing.T) {
	type need struct{ key, min, max int16 } // one of these versions
	h := &Handlers{rows: index(table)}
	for feature, needs := range map[string][]need{
		"MSGVER1":                  {{0, 2, 2}, {1, 2, 2}},
		"MSGVER2":                  {{0, 3, 3}, {1, 4, 4}},
		"APIVERSION":               {{18, 0, 0}},
		"BROKER_GROUP_COORD":       {{10, 0, 0}},
		"BROKER_BALANCED_CONSUMER": {{10, 0, 0}, {8, 1, 2}, {9, 1, 1}, {11, 0, 0}, {14, 0, 0}, {12, 0, 0}, {13, 0, 0}},
		"THROTTLETIME":             {{0, 1, 2}, {1, 1, 2}},
		"LZ4":                      {{10, 0, 0}},
		"OFFSET_TIME":              {{2, 1, 1}},
		"IDEMPOTENT_PRODUCER":      {{22, 0, 0}},
		"ZSTD":                     {{0, 7, 7}, {1, 10, 10}},
		"SASL_GSSAPI":              {{11, 0, 0}},
		"SASL_HANDSHAKE":           {{17, 0, 0}},
		"SASL_AUTH_REQ":            {{17, 1, 1}, {36, 0, 1}},
	} {
		for _, n := range needs {
			served := false
			for v := n.min; v <= n.max; v++ {
				served = served || h.Accepts(n.key, v)
			}
			if !served {
				t.Errorf("%s is off: %s is not served in v%d-%d", feature, kmsg.NameForKey(n.key), n.min, n.max)
			}
		}
	}
}
