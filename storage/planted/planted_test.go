package planted

import "testing"

// A program without the tag has none of the bugs, whatever its environment says.
func TestNoBugActsUnasked(t *testing.T) {
	for i, b := range All {
		t.Setenv(Environment, string(b))
		if Is(b) {
			t.Errorf("%s acts", b)
		}
		for _, other := range All[:i] {
			if b == other {
				t.Errorf("%s is listed twice", b)
			}
		}
	}
}
