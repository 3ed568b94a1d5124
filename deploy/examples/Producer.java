import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Publish reviews: every line of standard input is the text of one.
 *
 * <pre>printf 'I loved it.\nFar too long.\n' | java -cp 'lib/*' Producer.java 127.0.0.1:9092 reviews</pre>
 *
 * Prints their ids once the broker has them.
 */
public class Producer {
    private static final int ACKNOWLEDGED_SECONDS = 30;
    private static final SecureRandom RANDOM = new SecureRandom();

    private record Sent(String reviewId, Future<RecordMetadata> future) {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 2) {
            System.err.println("usage: Producer BOOTSTRAP_SERVERS TOPIC, and reviews on standard input, one a line");
            System.exit(2);
        }
        // The client's defaults are what is wanted: all replicas acknowledge, and what is sent again is there once.
        Map<String, Object> settings = Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0],
            ProducerConfig.LINGER_MS_CONFIG, 20);
        var json = new ObjectMapper();
        var sent = new ArrayList<Sent>();
        var lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (var producer = new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            for (var line = lines.readLine(); line != null; line = lines.readLine()) {
                var reviewId = UUID.randomUUID().toString();
                var review = json.writeValueAsBytes(Map.of("review_id", reviewId, "text", line));
                // Reviews with the same key stay in order: a film, say, or a customer. Here each is on its own.
                var record = new ProducerRecord<>(arguments[1], reviewId.getBytes(StandardCharsets.UTF_8), review);
                // A trace begins here. The prediction carries it on, and so does a dead letter.
                var trace = "00-" + randomHex(16) + "-" + randomHex(8) + "-01";
                record.headers().add("traceparent", trace.getBytes(StandardCharsets.UTF_8));
                sent.add(new Sent(reviewId, producer.send(record)));
            }
            for (var it : sent) {
                it.future().get(ACKNOWLEDGED_SECONDS, TimeUnit.SECONDS);
                System.out.println(it.reviewId());
            }
        }
    }

    private static String randomHex(int bytes) {
        var drawn = new byte[bytes];
        RANDOM.nextBytes(drawn);
        return HexFormat.of().formatHex(drawn);
    }
}
