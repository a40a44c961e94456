package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// A KeyValue is a key of etcd with its value, the revision of its last change and the
// lease on which it hangs, if any.
type KeyValue struct {
	Key, Value  []byte
	ModRevision int64 `json:"mod_revision,string"`
	Lease       int64 `json:"lease,string"`
}

// Put stores a value under a key.
func (e *Etcd) Put(ctx context.Context, key, value string) error {
	return e.call(ctx, "kv/put", map[string][]byte{"key": []byte(key), "value": []byte(value)}, nil)
}

// Delete removes a key; one that is not there is no error.
func (e *Etcd) Delete(ctx context.Context, key string) error {
	return e.call(ctx, "kv/deleterange", map[string][]byte{"key": []byte(key)}, nil)
}

// Prefix returns the keys that begin with prefix, in their order.
func (e *Etcd) Prefix(ctx context.Context, prefix string) ([]KeyValue, error) {
	end := []byte(prefix)
	end[len(end)-1]++ // prefixes here are ASCII
	var answer struct {
		KVs []KeyValue
	}
	err := e.call(ctx, "kv/range", map[string][]byte{"key": []byte(prefix), "range_end": end}, &answer)
	return answer.KVs, err
}

// Has says whether a key is there.
func (e *Etcd) Has(ctx context.Context, key string) (bool, error) {
	var answer struct {
		Count string
	}
	err := e.call(ctx, "kv/range", map[string][]byte{"key": []byte(key)}, &answer)
	return answer.Count == "1", err
}

// Revoke ends a lease at once, and with it the keys on it.
func (e *Etcd) Revoke(ctx context.Context, lease int64) error {
	return e.call(ctx, "lease/revoke", map[string]string{"ID": fmt.Sprint(lease)}, nil)
}

// Leads says whether the member leads its cluster.
func (m *EtcdMember) Leads(ctx context.Context) (bool, error) {
	var answer struct {
		Header struct {
			MemberID string `json:"member_id"`
		}
		Leader string
	}
	if err := m.call(ctx, "maintenance/status", []byte("{}"), &answer); err != nil {
		return false, err
	}
	return answer.Leader != "" && answer.Leader == answer.Header.MemberID, nil
}

// call asks the members in turn, through etcd's JSON gateway, until one answers.
func (e *Etcd) call(ctx context.Context, verb string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	var last error
	for _, m := range e.Members {
		if last = m.call(ctx, verb, body, answer); last == nil {
			return nil
		}
	}
	return fmt.Errorf("etcd %s: %w", verb, last)
}

func (m *EtcdMember) call(ctx context.Context, verb string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.client+"/v3/"+verb, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var text strings.Builder
		if err := resp.Write(&text); err != nil {
			return err
		}
		return fmt.Errorf("%s: %s", m.name, lastLines([]byte(text.String()), 1))
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(answer)
}
