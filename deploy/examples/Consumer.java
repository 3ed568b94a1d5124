import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Follow predictions and dead letters, one line each.
 *
 * <pre>java -cp 'lib/*' Consumer.java 127.0.0.1:9092 review-predictions reviews-dead-letters [COUNT]</pre>
 *
 * Ends with Ctrl-C, or when so many have come.
 */
public class Consumer {
    private static final String EVENT_TYPE = "review.scored.v1";
    private static final ObjectMapper JSON = new ObjectMapper();

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3 && arguments.length != 4) {
            System.err.println("usage: Consumer BOOTSTRAP_SERVERS PREDICTIONS DEAD_LETTERS [COUNT]");
            System.exit(2);
        }
        var predictions = arguments[1];
        var count = arguments.length == 4 ? Integer.parseInt(arguments[3]) : Integer.MAX_VALUE;
        Map<String, Object> settings = Map.of(
            ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            ConsumerConfig.GROUP_ID_CONFIG, "review-reader",
            // Without it, predictions of aborted transactions would be read too, and their reviews come twice.
            ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
            // Committed below instead, after a record was dealt with: one that was not comes again. What must not be
            // done twice has to remember `ce_id`, which is the same each time.
            ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        // UTF-8 whatever the locale is.
        var out = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
        var deserializer = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(settings, deserializer, deserializer)) {
            consumer.subscribe(List.of(predictions, arguments[2]));
            var seen = 0;
            while (seen < count) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    out.println(String.join("\t", describe(record, predictions)));
                    seen++;
                }
                consumer.commitSync();
            }
        }
    }

    /** What there is to say of a record; of a prediction of another contract, only that it is one. */
    private static List<String> describe(ConsumerRecord<byte[], byte[]> record, String predictions) throws IOException {
        if (!record.topic().equals(predictions)) {
            var place = String.join("/", header(record, "__connect.errors.topic"),
                header(record, "__connect.errors.partition"), header(record, "__connect.errors.offset"));
            var detail = header(record, "__connect.errors.exception.message");
            return List.of("dead letter", place, header(record, "rejection.reason"), detail);
        }
        var place = header(record, "ce_id");
        if (!header(record, "ce_type").equals(EVENT_TYPE)) {
            return List.of("unknown", place, header(record, "ce_type"));
        }
        var prediction = JSON.readTree(record.value());
        var confidence = String.format(Locale.ROOT, "%.3f", prediction.get("confidence").asDouble());
        return List.of("prediction", place, prediction.get("review_id").asText(), prediction.get("label").asText(),
            confidence);
    }

    private static String header(ConsumerRecord<byte[], byte[]> record, String name) {
        return new String(record.headers().lastHeader(name).value(), StandardCharsets.UTF_8);
    }
}
