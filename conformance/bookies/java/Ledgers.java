import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Enumeration;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.bookkeeper.client.AsyncCallback;
import org.apache.bookkeeper.client.BKException;
import org.apache.bookkeeper.client.BookKeeper;
import org.apache.bookkeeper.client.LedgerEntry;
import org.apache.bookkeeper.client.LedgerHandle;
import org.apache.bookkeeper.conf.ClientConfiguration;

/**
 * The Java client of Apache BookKeeper, led from its standard input: a command a line, answered by a line that begins
 * with "ok" or "error". Arguments: the URI of the metadata, and v2 or v3 of the bookies' protocol.
 *
 * <pre>
 * create DIGEST PASSWORD E WQ AQ          ok LEDGER              PASSWORD "-" is the empty one
 * add LEDGER COUNT BYTES                  ok LAST-ENTRY          entries as payload() makes them
 * close LEDGER                            ok LAST-ENTRY LENGTH
 * open LEDGER DIGEST PASSWORD recover|look   ok LAST-CONFIRMED LENGTH
 * read LEDGER FIRST LAST                  ok SHA256-OF-PAYLOADS BYTES   of the ledger as it was opened
 * custom LEDGER                           ok NAME=VALUE …
 * load E WQ AQ BYTES WINDOW WARM-SECONDS SECONDS   ok ADDS-PER-SECOND P50-MICROS P99-MICROS CPU-SECONDS-PER-GB
 * </pre>
 */
public final class Ledgers {
    private final BookKeeper client;
    private final Map<Long, LedgerHandle> handles = new HashMap<>();

    private Ledgers(BookKeeper client) {
        this.client = client;
    }

    public static void main(String[] args) throws Exception {
        ClientConfiguration conf = new ClientConfiguration();
        conf.setMetadataServiceUri(args[0]);
        conf.setZkTimeout(30000);
        conf.setUseV2WireProtocol(args[1].equals("v2"));
        conf.setNettyMaxFrameSizeBytes(5253120);
        conf.setAddEntryTimeout(5);
        conf.setThrottleValue(0); // else 5,000 requests a second
        try (BookKeeper client = new BookKeeper(conf)) {
            Ledgers ledgers = new Ledgers(client);
            System.out.println("ok ready");
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                System.out.println(ledgers.answer(line.trim().split(" +")));
            }
        }
    }

    private String answer(String[] words) {
        try {
            return "ok " + run(words);
        } catch (BKException e) {
            return "error " + e.getCode() + " " + BKException.codeLogger(e.getCode());
        } catch (Exception e) {
            return "error " + e;
        }
    }

    private String run(String[] w) throws Exception {
        switch (w[0]) {
            case "create": {
                Map<String, byte[]> custom = Map.of("application", "java".getBytes(StandardCharsets.UTF_8));
                LedgerHandle made = client.createLedger(number(w[3]), number(w[4]), number(w[5]), digest(w[1]), password(w[2]), custom);
                handles.put(made.getId(), made);
                return "" + made.getId();
            }
            case "add":
                return add(handle(w[1]), number(w[2]), number(w[3]));
            case "close": {
                LedgerHandle h = handle(w[1]);
                h.close();
                return h.getLastAddConfirmed() + " " + h.getLength();
            }
            case "open": {
                long id = Long.parseLong(w[1]);
                LedgerHandle h = w[4].equals("recover") ? client.openLedger(id, digest(w[2]), password(w[3]))
                        : client.openLedgerNoRecovery(id, digest(w[2]), password(w[3]));
                handles.put(id, h);
                return h.getLastAddConfirmed() + " " + h.getLength();
            }
            case "read":
                return read(handle(w[1]), Long.parseLong(w[2]), Long.parseLong(w[3]));
            case "custom": {
                StringBuilder out = new StringBuilder();
                handle(w[1]).getCustomMetadata().forEach(
                        (name, value) -> out.append(name).append('=').append(new String(value, StandardCharsets.UTF_8)).append(' '));
                return out.toString().trim();
            }
            case "load":
                return load(w);
            default:
                throw new IllegalArgumentException("unknown command " + w[0]);
        }
    }

    private LedgerHandle handle(String id) {
        LedgerHandle h = handles.get(Long.parseLong(id));
        if (h == null) {
            throw new IllegalArgumentException("ledger " + id + " is neither created nor opened here");
        }
        return h;
    }

    /** Entry E of B bytes holds B times the byte E modulo 251. */
    private static byte[] payload(long entry, int bytes) {
        byte[] payload = new byte[bytes];
        Arrays.fill(payload, (byte) (entry % 251));
        return payload;
    }

    private static String add(LedgerHandle handle, int count, int bytes) throws Exception {
        CompletableFuture<Long> last = CompletableFuture.completedFuture(handle.getLastAddPushed());
        long first = handle.getLastAddPushed() + 1;
        for (int i = 0; i < count; i++) {
            CompletableFuture<Long> done = new CompletableFuture<>();
            handle.asyncAddEntry(payload(first + i, bytes), (rc, h, entry, ctx) -> {
                if (rc == BKException.Code.OK) {
                    done.complete(entry);
                } else {
                    done.completeExceptionally(BKException.create(rc));
                }
            }, null);
            last = done; // callbacks come in order
        }
        try {
            return "" + last.get();
        } catch (java.util.concurrent.ExecutionException e) {
            throw e.getCause() instanceof BKException cause ? cause : e;
        }
    }

    private static String read(LedgerHandle handle, long first, long last) throws Exception {
        java.security.MessageDigest sum = java.security.MessageDigest.getInstance("SHA-256");
        long bytes = 0;
        Enumeration<LedgerEntry> entries = handle.readEntries(first, last);
        while (entries.hasMoreElements()) {
            byte[] entry = entries.nextElement().getEntry();
            sum.update(entry);
            bytes += entry.length;
        }
        return HexFormat.of().formatHex(sum.digest()) + " " + bytes;
    }

    private static BookKeeper.DigestType digest(String name) {
        return BookKeeper.DigestType.valueOf(name);
    }

    private static byte[] password(String word) {
        return word.equals("-") ? new byte[0] : word.getBytes(StandardCharsets.UTF_8);
    }

    private static int number(String word) {
        return Integer.parseInt(word);
    }

    /** Keeps a window of adds going to one ledger; every latency after the warm-up counts. */
    private String load(String[] w) throws Exception {
        int bytes = number(w[4]);
        int window = number(w[5]);
        long warm = TimeUnit.SECONDS.toNanos(number(w[6]));
        long measured = TimeUnit.SECONDS.toNanos(number(w[7]));
        LedgerHandle ledger = client.createLedger(number(w[1]), number(w[2]), number(w[3]), BookKeeper.DigestType.CRC32C, new byte[0]);
        ByteBuf payload = Unpooled.unreleasableBuffer(Unpooled.wrappedBuffer(payload(7, bytes)));
        Semaphore room = new Semaphore(window);
        AtomicInteger failed = new AtomicInteger(BKException.Code.OK);
        int[] micros = new int[1 << 22];
        int[] count = new int[1]; // of the callbacks' thread: a ledger has one
        long begin = System.nanoTime() + warm;
        AsyncCallback.AddCallback done = (rc, h, entry, sent) -> {
            if (rc != BKException.Code.OK) {
                failed.compareAndSet(BKException.Code.OK, rc);
            }
            long now = System.nanoTime();
            if (now >= begin && count[0] < micros.length) {
                micros[count[0]++] = (int) ((now - (Long) sent) / 1000);
            }
            room.release();
        };
        long cpu = 0;
        long measuredFrom = 0;
        for (long now = System.nanoTime(); now < begin + measured; now = System.nanoTime()) {
            room.acquire();
            if (failed.get() != BKException.Code.OK) {
                throw BKException.create(failed.get());
            }
            if (measuredFrom == 0 && now >= begin) {
                measuredFrom = now;
                cpu = cpuNanos();
            }
            ledger.asyncAddEntry(payload.duplicate(), done, System.nanoTime());
        }
        room.acquire(window);
        long took = System.nanoTime() - measuredFrom;
        cpu = cpuNanos() - cpu;
        client.deleteLedger(ledger.getId());
        int n = count[0];
        int[] sorted = Arrays.copyOf(micros, n);
        Arrays.sort(sorted);
        double gigabytes = (double) n * bytes / 1e9;
        return String.format(java.util.Locale.ROOT, "%.1f %d %d %.4f", n * 1e9 / took, sorted[n / 2], sorted[(int) (n * 0.99)],
                cpu / 1e9 / gigabytes);
    }

    private static long cpuNanos() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }
}
