import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;
import org.postgresql.PGConnection;

/**
 * Follows the feed of session_admin as a node, and prints what it applies.
 *
 * <pre>
 * javac -cp /usr/share/java/postgresql.jar Follow.java
 * java -cp /usr/share/java/postgresql.jar:. Follow jdbc:postgresql://host/database node application
 * </pre>
 *
 * A program with a cache does the same in a thread of its own: apply() is where it drops
 * entries, and mayAnswerFromCache() is what it asks before it uses one.
 */
public class Follow {
	private static final String SYNC =
		"SELECT applied, id, scope, application, user_name, encode(session_hash, 'hex') AS session,"
		+ " reason, extract(epoch FROM lease) * 1000 AS lease_ms"
		+ " FROM session_admin.sync_node(?, ?::pg_snapshot)";

	private final String node;
	private final String application;
	private String position;
	private volatile long trustedUntil = System.nanoTime();

	Follow(String node, String application) {
		this.node = node;
		this.application = application;
	}

	/** The lease rule, by a clock that nobody sets. */
	boolean mayAnswerFromCache() {
		return System.nanoTime() - trustedUntil < 0;
	}

	void apply(ResultSet row) throws SQLException {
		System.out.printf("%s application=%s user=%s session=%s reason=%s%n", row.getString("scope"),
			row.getString("application"), row.getString("user_name"), row.getString("session"),
			row.getString("reason"));
	}

	/** Follows the feed until the connection is lost. */
	void follow(Connection connection) throws SQLException {
		PGConnection bell = connection.unwrap(PGConnection.class);

		try (Statement listen = connection.createStatement()) {
			listen.execute("LISTEN session_admin");
		}
		// only once: with the position that it holds, a node that was cut off goes on where it was
		if (position == null) {
			position = join(connection);
		}
		try (PreparedStatement sync = connection.prepareStatement(SYNC)) {
			for (;;) {
				long leaseMillis = sync(sync);

				// if something was applied, what to do next is to say so
				if (leaseMillis > 0) {
					bell.getNotifications((int) Math.max(leaseMillis / 3, 50));
				}
			}
		}
	}

	private String join(Connection connection) throws SQLException {
		try (PreparedStatement join = connection.prepareStatement("SELECT session_admin.join_node(?, ?)")) {
			join.setString(1, node);
			join.setString(2, application);
			try (ResultSet row = join.executeQuery()) {
				row.next();
				return row.getString(1);
			}
		}
	}

	/** Applies what is new; the milliseconds of the lease, or 0 if there was anything. */
	private long sync(PreparedStatement sync) throws SQLException {
		long started = System.nanoTime();
		long leaseMillis = 0;
		boolean applied = false;
		String next = null;

		sync.setString(1, node);
		sync.setString(2, position);
		try (ResultSet rows = sync.executeQuery()) {
			while (rows.next()) {
				next = rows.getString("applied");
				leaseMillis = rows.getLong("lease_ms");
				if (rows.getString("id") != null) {
					apply(rows);
					applied = true;
				}
			}
		}
		position = next;
		trustedUntil = started + leaseMillis * 1_000_000;
		return applied ? 0 : leaseMillis;
	}

	public static void main(String[] args) throws InterruptedException {
		Follow follow = new Follow(args[1], args[2]);
		Properties properties = new Properties();

		// a server that does not answer must not hold us for longer than one that is gone
		properties.setProperty("connectTimeout", "10");
		properties.setProperty("socketTimeout", "10");
		for (;;) {
			try (Connection connection = DriverManager.getConnection(args[0], properties)) {
				follow.follow(connection);
			} catch (SQLException e) {
				System.err.println(e.getMessage());
			}
			Thread.sleep(500);
		}
	}
}
