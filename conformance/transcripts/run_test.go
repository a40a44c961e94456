package transcripts

import "time"

// sections are asked in this order. What creates and deletes comes first and
// last, so that lists of everything in between are known.
var sections = []struct {
	name string
	ask  func(*script)
}{
	{"versions", (*script).versions},
	{"metadata", (*script).metadata},
	{"createTopics", (*script).createTopics},
	{"createPartitions", (*script).createPartitions},
	{"produce", (*script).produce},
	{"produceIdempotent", (*script).produceIdempotent},
	{"produceOld", (*script).produceOld},
	{"fetch", (*script).fetch},
	{"fetchSessions", (*script).fetchSessions},
	{"fetchSizes", (*script).fetchSizes},
	{"listOffsets", (*script).listOffsets},
	{"offsetForLeaderEpoch", (*script).offsetForLeaderEpoch},
	{"deleteRecords", (*script).deleteRecords},
	{"configs", (*script).configs},
	{"initProducerID", (*script).initProducerID},
	{"describe", (*script).describe},
	{"groups", (*script).groups},
	{"administration", (*script).administration},
	{"security", (*script).security},
	{"transactions", (*script).transactions},
	{"telemetry", (*script).telemetry},
	{"deleteTopics", (*script).deleteTopics},
	{"everyKey", (*script).everyKey},
	{"frames", (*script).frames},
}

func (s *script) run() {
	for _, section := range sections {
		begun, before := time.Now(), len(s.answers)
		section.ask(s)
		s.t.Logf("%s: %d steps in %v", section.name, len(s.answers)-before, time.Since(begun).Round(time.Millisecond))
	}
}
