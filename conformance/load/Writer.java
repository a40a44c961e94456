import java.io.DataInputStream;
import java.io.EOFException;
import java.io.PrintStream;
import java.util.Properties;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * Sends what comes on standard input, frames of: length of the topic's name, the name, partition,
 * number of the record, length of the value, the value; numbers of 32 and 64 bits, big-endian. Says
 * "NUMBER OFFSET" or "NUMBER - ERROR" on standard output for each. It uses nothing that 0.10's
 * client has not. Arguments: configs, key=value.
 */
public final class Writer {
    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        for (String arg : args) {
            int at = arg.indexOf('=');
            config.put(arg.substring(0, at), arg.substring(at + 1));
        }
        config.put("key.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        config.put("value.serializer", "org.apache.kafka.common.serialization.ByteArraySerializer");
        PrintStream out = System.out;
        DataInputStream in = new DataInputStream(new java.io.BufferedInputStream(System.in, 1 << 16));
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config)) {
            while (true) {
                byte[] name;
                try {
                    name = new byte[in.readInt()];
                } catch (EOFException end) {
                    break;
                }
                in.readFully(name);
                int partition = in.readInt();
                long number = in.readLong();
                byte[] value = new byte[in.readInt()];
                in.readFully(value);
                producer.send(new ProducerRecord<>(new String(name, "UTF-8"), partition, null, value), (metadata, error) -> {
                    synchronized (out) {
                        if (error == null) {
                            out.println(number + " " + metadata.offset());
                        } else {
                            out.println(number + " - " + error.toString().replace('\n', ' '));
                        }
                        out.flush();
                    }
                });
            }
        }
    }
}
