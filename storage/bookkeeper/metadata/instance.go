package metadata

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// CheckInstance says whether the store holds the cluster wanted: ErrNotInitialised
// if it holds none, ErrWrongCluster if another. It returns the id of the cluster
// that is there; want is empty before anybody knows.
func CheckInstance(ctx context.Context, s Store, want string) (string, error) {
	id, err := s.InstanceID(ctx)
	if err != nil {
		return "", err
	}
	if want != "" && id != want {
		return "", fmt.Errorf("metadata store: %w: it holds %s, not %s", ErrWrongCluster, id, want)
	}
	return id, nil
}

// Strangers returns the bookies whose cookies are of another cluster than
// instanceID. Nothing of ours should be placed on them.
func Strangers(instanceID string, cookies map[BookieID]Cookie) []BookieID {
	var strangers []BookieID
	for _, id := range slices.Sorted(maps.Keys(cookies)) {
		if c := cookies[id]; c.InstanceID != "" && c.InstanceID != instanceID {
			strangers = append(strangers, id)
		}
	}
	return strangers
}
