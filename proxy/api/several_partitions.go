package api

// partitions is a request that names partitions by topic, and its response. T and P are
// a topic and a partition of the request, R and A of the response. An item is a partition.
type partitions[T, P, R, A any] struct {
	asked []T
	of    func(*T) (name string, partitions *[]P)
	told  []R
	in    func(*R) *[]A
	at    []partitionAt // by item
	slots []int         // likewise
}

// partitionsAsked takes topics apart. number is that of a partition; begin prepares a topic
// of the response, whose partitions are where in says.
func partitionsAsked[T, P, R, A any](h *Handlers, asked []T, of func(*T) (string, *[]P), number func(*P) int32, begin func(*R, string), in func(*R) *[]A) *partitions[T, P, R, A] {
	s := &partitions[T, P, R, A]{asked: asked, of: of, in: in, told: make([]R, len(asked))}
	for i := range asked {
		name, ps := of(&asked[i])
		begin(&s.told[i], name)
		*in(&s.told[i]) = make([]A, len(*ps))
		for j := range *ps {
			s.at = append(s.at, partitionAt{i, j})
			s.slots = append(s.slots, h.partitionSlot(name, number(&(*ps)[j])))
		}
	}
	return s
}

// ask is what is asked about an item, and out where its answer goes.
func (s *partitions[T, P, R, A]) ask(i int) *P {
	_, ps := s.of(&s.asked[s.at[i].topic])
	return &(*ps)[s.at[i].partition]
}

func (s *partitions[T, P, R, A]) out(i int) *A {
	return &(*s.in(&s.told[s.at[i].topic]))[s.at[i].partition]
}

// some are the topics of a request for some of the items.
func (s *partitions[T, P, R, A]) some(items []int) (topics []T) {
	byTopic(s.at, items, func(topic int) {
		t := s.asked[topic]
		_, ps := s.of(&t)
		*ps = nil
		topics = append(topics, t)
	}, func(p partitionAt) {
		_, ps := s.of(&topics[len(topics)-1])
		_, all := s.of(&s.asked[p.topic])
		*ps = append(*ps, (*all)[p.partition])
	})
	return topics
}

// answers are those of topics of a response, with their codes.
func (s *partitions[T, P, R, A]) answers(topics []R, code func(*A) int16) answers {
	var all []A
	for i := range topics {
		all = append(all, *s.in(&topics[i])...)
	}
	return answers{len(all), func(k, i int) int16 {
		*s.out(i) = all[k]
		return code(&all[k])
	}}
}
