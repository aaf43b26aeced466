"""Lists token formats of gitleaks (github.com/gitleaks/gitleaks, config/gitleaks.toml at b58d3f1), as data.

Taken are the rules that begin with fixed characters, less those that `_secrets.py` has; what may stand before and after
a token is left out there and added here for all alike. Rules that only know a name near a value are in `_secrets.py`.

gitleaks has this licence:

MIT License

Copyright (c) 2019 Zachary Rice

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the 'Software'), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED 'AS IS', WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

# Name, expression without its boundaries, and its first characters (RE2 and Python read both alike).
GITLEAKS_TOKENS = (
    ("onepassword_service_account_token", r"ops_eyJ[a-zA-Z0-9+/]{250,}={0,3}", r"ops_eyJ"),
    ("adobe_client_secret", r"p8e-(?i:[a-z0-9]{32})", r"p8e-"),
    ("alibaba_access_key_id", r"LTAI(?i:[a-z0-9]{20})", r"LTAI"),
    ("artifactory_api_key", r"AKCp[A-Za-z0-9]{69}", r"AKCp"),
    ("artifactory_reference_token", r"cmVmd[A-Za-z0-9]{59}", r"cmVmd"),
    ("aws_amazon_bedrock_api_key_long_lived", r"ABSK[A-Za-z0-9+/]{109,269}={0,2}", r"ABSK"),
    ("clojars_api_token", r"CLOJARS_[a-z0-9]{60}", r"CLOJARS_"),
    ("cloudflare_origin_ca_key", r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}", r"v1\.0-"),
    ("doppler_api_token", r"dp\.pt\.(?i:[a-z0-9]{43})", r"dp\.pt\."),
    ("duffel_api_token", r"duffel_(?:test|live)_(?i:[a-z0-9_\-=]{43})", r"duffel_"),
    ("dynatrace_api_token", r"dt0c01\.(?i:[a-z0-9]{24}\.[a-z0-9]{64})", r"dt0c01\."),
    ("easypost_api_token", r"EZAK(?i:[a-z0-9]{54})", r"EZAK"),
    ("easypost_test_api_token", r"EZTK(?i:[a-z0-9]{54})", r"EZTK"),
    ("flutterwave_encryption_key", r"FLWSECK_TEST-(?i:[a-h0-9]{12})", r"FLWSECK_TEST-"),
    ("flutterwave_secret_key", r"FLWSECK_TEST-(?i:[a-h0-9]{32}-X)", r"FLWSECK_TEST-"),
    ("frameio_api_token", r"fio-u-(?i:[a-z0-9\-_=]{64})", r"fio-u-"),
    ("gitlab_cicd_job_token", r"glcbt-[0-9a-zA-Z]{1,5}_[0-9a-zA-Z_-]{20}", r"glcbt-"),
    ("gitlab_feature_flag_client_token", r"glffct-[0-9a-zA-Z_\-]{20}", r"glffct-"),
    ("gitlab_feed_token", r"glft-[0-9a-zA-Z_\-]{20}", r"glft-"),
    ("gitlab_incoming_mail_token", r"glimt-[0-9a-zA-Z_\-]{25}", r"glimt-"),
    ("gitlab_oauth_app_secret", r"gloas-[0-9a-zA-Z_\-]{64}", r"gloas-"),
    ("gitlab_ptt", r"glptt-[0-9a-f]{40}", r"glptt-"),
    ("gitlab_rrt", r"GR1348941[\w-]{20}", r"GR1348941"),
    ("gitlab_scim_token", r"glsoat-[0-9a-zA-Z_\-]{20}", r"glsoat-"),
    ("gitlab_session_cookie", r"_gitlab_session=[0-9a-z]{32}", r"_gitlab_session"),
    ("grafana_api_key", r"eyJrIjoi[A-Za-z0-9]{70,400}={0,3}", r"eyJrIjoi"),
    ("grafana_cloud_api_token", r"glc_[A-Za-z0-9+/]{32,400}={0,3}", r"glc_"),
    ("huggingface_organization_api_token", r"api_org_(?i:[a-z]{34})", r"api_org_"),
    ("intra42_client_secret", r"s-s4t2(?:ud|af)-(?i:[abcdef0123456789]{64})", r"s-s4t2"),
    (
        "microsoft_teams_webhook",
        r"https://[a-z0-9]+\.webhook\.office\.com/webhookb2/[a-z0-9]{8}-([a-z0-9]{4}-){3}[a-z0-9]{12}@[a-z0-9]{8}-([a-z0-9]{4}-){3}[a-z0-9]{12}/IncomingWebhook/[a-z0-9]{32}/[a-z0-9]{8}-([a-z0-9]{4}-){3}[a-z0-9]{12}",
        r"webhook\.office\.com/webhookb2/",
    ),
    ("planetscale_api_token", r"pscale_tkn_(?i:[\w=\.-]{32,64})", r"pscale_tkn_"),
    ("planetscale_oauth_token", r"pscale_oauth_[\w=\.-]{32,64}", r"pscale_oauth_"),
    ("planetscale_password", r"pscale_pw_(?i:[\w=\.-]{32,64})", r"pscale_pw_"),
    ("prefect_api_token", r"pnu_[a-zA-Z0-9]{36}", r"pnu_"),
    ("pulumi_api_token", r"pul-[a-f0-9]{40}", r"pul-"),
    ("readme_api_token", r"rdme_[a-z0-9]{70}", r"rdme_"),
    ("rubygems_api_token", r"rubygems_[a-f0-9]{48}", r"rubygems_"),
    ("scalingo_api_token", r"tk-us-[\w-]{48}", r"tk-us-"),
    ("sendinblue_api_token", r"xkeysib-[a-f0-9]{64}\-(?i:[a-z0-9]{16})", r"xkeysib-"),
    ("sentry_user_token", r"sntryu_[a-f0-9]{64}", r"sntryu_"),
    ("settlemint_application_access_token", r"sm_aat_[a-zA-Z0-9]{16}", r"sm_aat_"),
    ("settlemint_personal_access_token", r"sm_pat_[a-zA-Z0-9]{16}", r"sm_pat_"),
    ("settlemint_service_access_token", r"sm_sat_[a-zA-Z0-9]{16}", r"sm_sat_"),
    ("shippo_api_token", r"shippo_(?:live|test)_[a-fA-F0-9]{40}", r"shippo_"),
)
