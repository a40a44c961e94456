import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import kafka.api.FetchRequestBuilder;
import kafka.javaapi.FetchResponse;
import kafka.javaapi.consumer.SimpleConsumer;
import kafka.message.MessageAndOffset;

/** The consumer of 0.8 that is told what to fetch; with it Fetch requests of version 0. */
final class Reader implements AutoCloseable {
    static final String CLIENT = "zoo";

    final SimpleConsumer consumer = connect();

    static SimpleConsumer connect() {
        int colon = Main.BOOTSTRAP.lastIndexOf(':');
        return new SimpleConsumer(Main.BOOTSTRAP.substring(0, colon),
            Integer.parseInt(Main.BOOTSTRAP.substring(colon + 1)), 10_000, 64 * 1024, CLIENT);
    }

    /** Reads partition 0 up to its end; count is not needed to find it. */
    List<Rec> readAll(String topic, int count) {
        List<Rec> records = new ArrayList<>();
        long offset = 0;
        while (true) {
            FetchResponse response = consumer.fetch(new FetchRequestBuilder().clientId(CLIENT)
                .addFetch(topic, 0, offset, 1 << 20).build());
            Main.require(!response.hasError(), topic + ": fetch error " + response.errorCode(topic, 0));
            long next = offset;
            for (MessageAndOffset m : response.messageSet(topic, 0)) {
                // A compressed set begins before the offset that was asked for.
                if (m.offset() < offset)
                    continue;
                records.add(new Rec(bytes(m.message().key()), bytes(m.message().payload())));
                next = m.nextOffset();
            }
            if (next == offset)
                break;
            offset = next;
        }
        Main.require(offset == consumer.fetch(new FetchRequestBuilder().clientId(CLIENT)
            .addFetch(topic, 0, offset, 1 << 20).build()).highWatermark(topic, 0), topic + ": not at the high watermark");
        return records;
    }

    private static byte[] bytes(ByteBuffer b) {
        if (b == null)
            return null;
        byte[] out = new byte[b.remaining()];
        b.duplicate().get(out);
        return out;
    }

    @Override
    public void close() {
        consumer.close();
    }
}
