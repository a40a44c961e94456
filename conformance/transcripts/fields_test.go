package transcripts

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fields makes the lines of an answer, "path = value", one per field that does
// not have its default: fields that a version lacks have that too. What no
// two runs need to agree on is replaced by a word; lists are sorted, since
// their order is a server's own.
func (s *script) fields(resp kmsg.Response) []string {
	return s.value(resp.Key(), "", reflect.ValueOf(resp).Elem())
}

func (s *script) value(key int16, path string, v reflect.Value) []string {
	name := strings.TrimSuffix(path[strings.LastIndexByte(path, '.')+1:], element)
	quorum := key == int16(kmsg.DescribeQuorum)
	line := func(text string) []string { return []string{path + " = " + text} }
	switch v.Kind() {
	case reflect.Struct:
		usual := reflect.New(v.Type())
		if d, ok := usual.Interface().(interface{ Default() }); ok {
			d.Default()
		}
		var lines []string
		for i := range v.NumField() {
			if reflect.DeepEqual(v.Field(i).Interface(), usual.Elem().Field(i).Interface()) {
				continue
			}
			switch field := v.Type().Field(i).Name; field {
			case "Version", "ErrorMessage", "ErrMsg":
				// What an error says, and whether anything, is each server's own.
			case "UnknownTags":
				// kmsg knows every tag of the versions that it has.
				tags := v.Field(i).Interface().(kmsg.Tags)
				if tags.Len() > 0 {
					lines = append(lines, fmt.Sprintf("%s: %d unknown tags", path, tags.Len()))
				}
			default:
				lines = append(lines, s.value(key, strings.TrimPrefix(path+"."+field, "."), v.Field(i))...)
			}
		}
		if lines == nil && path == "" {
			return []string{"all default"}
		}
		if lines == nil {
			return line("all default")
		}
		return lines
	case reflect.Pointer:
		if v.IsNil() {
			return line("null")
		}
		return s.value(key, path, v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			if key == int16(kmsg.Fetch) && name == "RecordBatches" {
				return recordLines(path, v.Bytes(), s.base)
			}
			return line(strconv.Quote(string(v.Bytes())))
		}
		if v.IsNil() && nullable[path] {
			return line("null")
		}
		if kind := v.Type().Elem().Kind(); kind != reflect.Struct && kind != reflect.Pointer && v.Len() > 0 {
			var values []string
			for i := range v.Len() {
				_, value, _ := strings.Cut(s.value(key, path, v.Index(i))[0], " = ")
				values = append(values, value)
			}
			return line("[" + strings.Join(values, ", ") + "]")
		}
		var elements [][]string
		for i := range v.Len() {
			e := v.Index(i)
			if s.hidden(e) {
				continue
			}
			lines := s.value(key, path+element, e)
			if name, ok := named(e); ok {
				for j := range lines {
					lines[j] = path + "[" + name + "]" + strings.TrimPrefix(lines[j], path+element)
				}
			}
			elements = append(elements, lines)
		}
		if len(elements) == 0 {
			return line("[]")
		}
		slices.SortStableFunc(elements, slices.Compare)
		// What belongs together keeps its number among several, or its name.
		for i, lines := range elements {
			number := ""
			if len(elements) > 1 {
				number = fmt.Sprintf("[%d]", i)
			}
			for j := range lines {
				if !strings.HasPrefix(lines[j], path+element) {
					continue
				}
				lines[j] = path + number + strings.TrimPrefix(lines[j], path+element)
			}
		}
		return slices.Concat(elements...)
	case reflect.Array:
		id := [16]byte(v.Bytes())
		switch topic, known := s.ids[id]; {
		case known && strings.HasSuffix(topic, "-"+strconv.Itoa(int(s.version))):
			return line("id of " + strings.TrimSuffix(topic, strconv.Itoa(int(s.version))) + "VERSION")
		case id == [16]byte{}:
			return line("zero")
		case known:
			return line("id of " + topic)
		default:
			return line("an id")
		}
	case reflect.String:
		text := v.String()
		// What steps do to a topic of their version's own is told alike for all.
		if topic, ok := strings.CutSuffix(text, "-"+strconv.Itoa(int(s.version))); ok && name == "Topic" {
			text = topic + "-VERSION"
		}
		host, _ := s.hostPort()
		switch {
		case name == "Documentation" && text != "":
			return line("some text")
		case text != "" && (name == "ClusterID" || name == "MemberID" || name == "Dir" || name == "LeaderID"):
			return line("a " + name)
		case text == host:
			return line("HOST")
		}
		return line(strconv.Quote(text))
	case reflect.Int16:
		n := int16(v.Int())
		if strings.HasSuffix(name, "ErrorCode") && n != 0 {
			if err, ok := kerr.ErrorForCode(n).(*kerr.Error); ok {
				return line(fmt.Sprint(n, " ", err.Message))
			}
		}
		return line(fmt.Sprint(n))
	case reflect.Int32:
		n := v.Int()
		_, port := s.hostPort()
		switch {
		case name == "Partition" && n == int64(s.own):
			return line("of the step")
		case name == "Port" && n == int64(port):
			return line("PORT")
		case name == "SessionID" && n != 0:
			return line("a session")
		case (name == "PushIntervalMillis" || name == "SubscriptionID" || name == "TelemetryMaxBytes") && n > 0:
			return line("some")
		case quorum && name == "LeaderEpoch":
			return line("some")
		}
		return line(fmt.Sprint(n))
	case reflect.Int64:
		n := v.Int()
		switch {
		case quorum && n > 0:
			return line("some")
		case s.recent(n):
			return line("now")
		case slices.Contains(counted, name) && n >= 0:
			return line("some")
		}
		return line(fmt.Sprint(n))
	case reflect.Uint16:
		if quorum && name == "Port" {
			return line("some")
		}
		return line(fmt.Sprint(v.Uint()))
	default:
		return line(fmt.Sprint(v.Interface()))
	}
}

// element stands for the number of an element while its list is not sorted.
const element = "[?]"

// counted are numbers of a server's own making.
var counted = []string{"ProducerID", "FinalizedFeaturesEpoch", "Size", "TotalBytes", "UsableBytes"}

// nullable are lists of which null and empty say different things to a client.
var nullable = map[string]bool{
	"Topics[?].Partitions[?].AbortedTransactions": true,
}

// named returns the name of an element of a list of settings or features.
func named(element reflect.Value) (string, bool) {
	if element.Kind() != reflect.Struct {
		return "", false
	}
	name := element.FieldByName("Name")
	if !name.IsValid() || name.Kind() != reflect.String {
		return "", false
	}
	return name.String(), true
}

// hidden tells the elements of lists of everything that belong to other steps
// and to servers themselves.
func (s *script) hidden(element reflect.Value) bool {
	const ofTopic = 1
	if c, ok := element.Interface().(kmsg.CreateTopicsResponseTopicConfig); ok && int8(c.Source) != ofTopic {
		// What is not set at the topic DescribeConfigs tells too.
		return true
	}
	if s.only == "" || element.Kind() != reflect.Struct {
		return false
	}
	if _, ok := element.Interface().(kmsg.ListConfigResourcesResponseConfigResource); ok {
		return true
	}
	for _, field := range []string{"Topic", "Group"} {
		name := element.FieldByName(field)
		for name.IsValid() && name.Kind() == reflect.Pointer && !name.IsNil() {
			name = name.Elem()
		}
		if name.IsValid() && name.Kind() == reflect.String {
			return !strings.HasPrefix(name.String(), s.only)
		}
	}
	return false
}

// recent tells that a number is a time of this run in milliseconds.
func (s *script) recent(millis int64) bool {
	if millis < 0 || millis > math.MaxInt64/2 {
		return false
	}
	return millis >= s.started.Add(-time.Minute).UnixMilli() && millis <= time.Now().Add(time.Minute).UnixMilli()
}
