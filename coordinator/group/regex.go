package group

import (
	"hash/fnv"
	"regexp"
	"regexp/syntax"
	"slices"
	"time"
)

const (
	// maxRegexBytes and maxRegexInstructions bound what matching one expression
	// against every topic costs. RE2 takes time linear in both.
	maxRegexBytes        = 1024
	maxRegexInstructions = 4096
	// regexRefreshInterval is how often a group's expressions are matched again
	// when topics come and go (GroupMetadataManager.REGEX_BATCH_REFRESH_INTERVAL_MS).
	regexRefreshInterval = 10 * time.Second
)

// topicRegex is an expression that members subscribe to (KIP-848,
// SubscribedTopicRegex). It has RE2's syntax, as Kafka's, and matches whole names.
type topicRegex struct {
	pattern *regexp.Regexp
	members int // that subscribe to it

	// topics are the names that it matched last, ascending, once resolved is set;
	// hash is theirs. Only the hash is in the group's record: by it a loaded group
	// sees whether other topics match than before.
	topics   []string
	resolved bool
	hash     uint64
}

// compileTopicRegex returns ErrInvalidRegex for an expression that is not RE2's
// or too large.
func compileTopicRegex(expression string) (*regexp.Regexp, error) {
	if len(expression) > maxRegexBytes {
		return nil, ErrInvalidRegex
	}
	// Alone first: an unbalanced parenthesis must not pair with those around it.
	parsed, err := syntax.Parse(expression, syntax.Perl)
	if err != nil {
		return nil, ErrInvalidRegex
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil || len(program.Inst) > maxRegexInstructions {
		return nil, ErrInvalidRegex
	}
	pattern, err := regexp.Compile(`\A(?:` + expression + `)\z`)
	if err != nil {
		return nil, ErrInvalidRegex
	}
	return pattern, nil
}

// matches tells whether the expression subscribes to a topic, also to one that
// came after it was resolved.
func (r *topicRegex) matches(topic string) bool { return r.pattern.MatchString(topic) }

// resolve matches the expression against all topics and tells whether the
// matches have changed.
func (r *topicRegex) resolve(topics Topics) bool {
	var names []string
	for name := range topics.Names() {
		if r.pattern.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	hash := hashNames(names)
	changed := hash != r.hash
	r.topics, r.resolved, r.hash = names, true, hash
	return changed
}

// hashNames is FNV-1a over the names, each with a zero byte behind it. Names
// cannot contain one.
func hashNames(names []string) uint64 {
	h := fnv.New64a()
	for _, name := range names {
		h.Write(append([]byte(name), 0))
	}
	return h.Sum64()
}
