//! A certificate that its own key signs, for a server on this machine.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::Context as _;
use pem::{EncodeConfig, LineEnding, Pem};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use x509_cert::der::asn1::{Any, BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::{DateTime, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate, Version};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

/// A certificate with its key. Tests set clocks back and forward: it is valid at any time.
pub struct SelfSigned {
    certificate: Vec<u8>,
    key: Vec<u8>,
    public_key: Vec<u8>,
}

impl SelfSigned {
    /// For a server with these names and addresses.
    pub fn new(names: &[&str]) -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).ok().context("making a key")?;
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).ok().context("reading the key")?;
        let public_key = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned { oid: EC_PUBLIC_KEY, parameters: Some(Any::encode_from(&P256)?) },
            subject_public_key: BitString::from_bytes(pair.public_key().as_ref())?,
        };
        let unsigned = unsigned(names, public_key.clone())?;
        let signature = pair.sign(&random, &unsigned.to_der()?).ok().context("signing the certificate")?;
        let certificate = Certificate {
            signature_algorithm: unsigned.signature.clone(),
            signature: BitString::from_bytes(signature.as_ref())?,
            tbs_certificate: unsigned,
        };
        Ok(Self { certificate: certificate.to_der()?, key: key.as_ref().to_vec(), public_key: public_key.to_der()? })
    }

    /// The certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// The key as PKCS#8, in DER.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The certificate.
    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// The key.
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    /// What verifies the key's signatures.
    pub fn public_key_pem(&self) -> String {
        pem("PUBLIC KEY", &self.public_key)
    }
}

fn pem(kind: &str, der: &[u8]) -> String {
    pem::encode_config(&Pem::new(kind, der), EncodeConfig::new().set_line_ending(LineEnding::LF))
}

fn unsigned(names: &[&str], subject_public_key_info: SubjectPublicKeyInfoOwned) -> anyhow::Result<TbsCertificate> {
    let name = Name::from_str("CN=tenant-operator on this machine")?;
    // A serial number is positive.
    let serial = u128::from_be_bytes(rand::random()) >> 1;
    let names = names.iter().map(|name| general_name(name)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial.to_be_bytes())?,
        signature: AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA256, parameters: None },
        issuer: name.clone(),
        validity: Validity {
            not_before: Time::UtcTime(UtcTime::from_date_time(DateTime::new(1975, 1, 1, 0, 0, 0)?)?),
            not_after: Time::GeneralTime(GeneralizedTime::from_date_time(DateTime::new(4096, 1, 1, 0, 0, 0)?)),
        },
        subject: name,
        subject_public_key_info,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(vec![Extension {
            extn_id: SubjectAltName::OID,
            critical: false,
            extn_value: OctetString::new(SubjectAltName(names).to_der()?)?,
        }]),
    })
}

fn general_name(name: &str) -> anyhow::Result<GeneralName> {
    Ok(match name.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => GeneralName::DnsName(Ia5String::new(name)?),
    })
}
